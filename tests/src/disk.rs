//! A disk that remembers what was synced and what was not, and that stops when it is told to.
//!
//! Each change (a file made, renamed or removed, a write, a sync of a file or of the directory) is a step. At the step
//! that a test chose the power goes: that step and all later ones fail. What a start finds after that is drawn from what
//! [`Fate`] allows: what was synced is there; of the rest anything may be, whole, torn at any place, or as garbage.

use crate::random::Random;
use kiln_coordinator::store::{Medium, MediumFile};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// What becomes of what was not synced when the power goes.
#[derive(Clone, Copy, Debug)]
pub enum Fate {
    /// None of it is there.
    Lost,
    /// All of it is there: the system goes on, and only the process has ended.
    Kept,
    /// Each name and each write is there or not, by chance, and a write perhaps in parts.
    Torn {
        /// Of the chances.
        seed: u64,
    },
    /// As `Torn`, and of what was not synced any byte may be any other.
    Garbled {
        /// Of the chances.
        seed: u64,
    },
}

/// See the module. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct Disk(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Syncs go on.
    goes_on: Condvar,
}

#[derive(Debug, Default)]
struct State {
    files: Vec<Contents>,
    names: Names,
    synced_names: Names,
    /// In order, since the last sync of the directory.
    renames: Vec<Rename>,
    steps: u64,
    power_goes_at: Option<u64>,
    is_off: bool,
    sync_fails: bool,
    /// Syncs of files take until this is over.
    stalls: bool,
    /// How many bytes all files together may have.
    room: Option<usize>,
}

type Names = BTreeMap<String, usize>;

#[derive(Clone, Debug, Default)]
struct Contents {
    bytes: Vec<u8>,
    synced: Vec<u8>,
    writes: Vec<(usize, Vec<u8>)>,
    /// What a sync failed to write is only remembered: this is there.
    on_medium: Option<Vec<u8>>,
}

/// A change of names: these go, and this one leads to that file.
#[derive(Clone, Debug)]
struct Rename {
    gone: Option<String>,
    made: Option<(String, usize)>,
}

impl Rename {
    fn carry_out(&self, names: &mut Names) {
        if let Some(gone) = &self.gone {
            names.remove(gone);
        }
        if let Some((name, file)) = &self.made {
            names.insert(name.clone(), *file);
        }
    }
}

fn write_into(bytes: &mut Vec<u8>, at: usize, written: &[u8]) {
    if bytes.len() < at + written.len() {
        bytes.resize(at + written.len(), 0);
    }
    bytes[at..at + written.len()].copy_from_slice(written);
}

impl State {
    fn step(&mut self) -> io::Result<()> {
        if self.is_off || self.power_goes_at == Some(self.steps) {
            self.is_off = true;
            return Err(io::Error::other("the power is gone"));
        }
        self.steps += 1;
        Ok(())
    }

    fn rename(&mut self, rename: Rename) {
        rename.carry_out(&mut self.names);
        self.renames.push(rename);
    }

    fn used(&self) -> usize {
        self.names.values().map(|file| self.files[*file].bytes.len()).sum()
    }

    fn check_room(&self, file: usize, length: usize) -> io::Result<()> {
        let grows = length.saturating_sub(self.files[file].bytes.len());
        match self.room {
            Some(room) if grows > 0 && self.used() + grows > room => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }

    fn file(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// What is left of a write: parts of it, cut at any byte.
fn tear(random: &Random, at: usize, written: &[u8], garbled: bool, into: &mut Vec<u8>) {
    let mut start = 0;
    while start < written.len() {
        let length = 1 + random.below((written.len() - start).min(512));
        let part = &written[start..start + length];
        match random.below(if garbled { 3 } else { 2 }) {
            0 => {
                // Lost, but the file may be as long as if it were not.
                if into.len() < at + start + length {
                    into.resize(at + start + length, 0);
                }
            }
            1 => write_into(into, at + start, part),
            _ => {
                let garbage: Vec<u8> = part.iter().map(|byte| byte ^ random.next().to_le_bytes()[0]).collect();
                write_into(into, at + start, &garbage);
            }
        }
        start += length;
    }
}

impl Disk {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many steps there were.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.lock().steps
    }

    /// Lets the power go at this step.
    pub fn power_goes_at(&self, step: u64) {
        self.lock().power_goes_at = Some(step);
    }

    /// Whether the power has gone.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.lock().is_off
    }

    /// Lets syncs fail from now on, or succeed again.
    pub fn sync_fails(&self, fails: bool) {
        self.lock().sync_fails = fails;
    }

    /// Lets no sync of a file return from now on, or lets all of them go on.
    pub fn stall(&self, stalls: bool) {
        self.lock().stalls = stalls;
        self.0.goes_on.notify_all();
    }

    /// Bounds what all files together may have, in bytes.
    pub fn set_room(&self, room: Option<usize>) {
        self.lock().room = room;
    }

    /// What all files together have, in bytes.
    #[must_use]
    pub fn used(&self) -> usize {
        self.lock().used()
    }

    /// What the next start finds.
    #[must_use]
    pub fn after(&self, fate: Fate) -> Self {
        let state = self.lock();
        let (random, mut names) = (Random::new(seed(fate)), state.synced_names.clone());
        for rename in &state.renames {
            let is_kept = match fate {
                Fate::Lost => false,
                Fate::Kept => true,
                Fate::Torn { .. } | Fate::Garbled { .. } => random.below(2) == 0,
            };
            let leads_somewhere = rename.gone.as_ref().is_none_or(|gone| names.contains_key(gone));
            if is_kept && leads_somewhere {
                rename.carry_out(&mut names);
            }
        }
        let mut after = State::default();
        for (name, file) in names {
            let file = &state.files[file];
            let mut bytes = file.synced.clone();
            let on_medium = file.on_medium.clone().filter(|_| matches!(fate, Fate::Kept));
            if on_medium.is_some() {
                bytes.clone_from(&file.bytes);
            }
            for (at, written) in &file.writes {
                match fate {
                    Fate::Lost => {}
                    Fate::Kept => write_into(&mut bytes, *at, written),
                    Fate::Torn { .. } => tear(&random, *at, written, false, &mut bytes),
                    Fate::Garbled { .. } => tear(&random, *at, written, true, &mut bytes),
                }
            }
            after.names.insert(name, after.files.len());
            after.files.push(Contents { synced: bytes.clone(), bytes, writes: Vec::new(), on_medium });
        }
        after.synced_names = after.names.clone();
        Self(Arc::new(Shared { state: Mutex::new(after), goes_on: Condvar::new() }))
    }

    /// A copy on which everything is synced.
    #[must_use]
    pub fn copy(&self) -> Self {
        self.after(Fate::Kept)
    }

    /// The names of its files, in order.
    #[must_use]
    pub fn files(&self) -> Vec<String> {
        self.lock().names.keys().cloned().collect()
    }

    /// The bytes of a file.
    ///
    /// # Panics
    /// When there is none of that name.
    #[must_use]
    pub fn bytes(&self, name: &str) -> Vec<u8> {
        let state = self.lock();
        state.files[state.names[name]].bytes.clone()
    }

    /// Puts these bytes in place of a file, or makes it.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        let mut state = self.lock();
        let file = state.files.len();
        state.files.push(Contents { synced: bytes.clone(), bytes, ..Contents::default() });
        state.names.insert(name.to_owned(), file);
        state.synced_names.insert(name.to_owned(), file);
    }

    /// Takes a file away.
    pub fn take(&self, name: &str) {
        let mut state = self.lock();
        state.names.remove(name);
        state.synced_names.remove(name);
    }
}

const fn seed(fate: Fate) -> u64 {
    match fate {
        Fate::Lost | Fate::Kept => 0,
        Fate::Torn { seed } | Fate::Garbled { seed } => seed,
    }
}

impl Medium for Disk {
    fn place(&self) -> String {
        "the simulated disk".to_owned()
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.files())
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn MediumFile>> {
        let file = self.lock().file(name)?;
        Ok(Box::new(File { disk: self.clone(), file }))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn MediumFile>> {
        let mut state = self.lock();
        state.step()?;
        let file = state.files.len();
        state.files.push(Contents::default());
        state.rename(Rename { gone: None, made: Some((name.to_owned(), file)) });
        drop(state);
        Ok(Box::new(File { disk: self.clone(), file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.lock();
        state.step()?;
        let file = state.file(from)?;
        state.rename(Rename { gone: Some(from.to_owned()), made: Some((to.to_owned(), file)) });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.lock();
        state.step()?;
        state.file(name)?;
        state.rename(Rename { gone: Some(name.to_owned()), made: None });
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.lock();
        state.step()?;
        if state.sync_fails {
            return Err(io::Error::other("the directory cannot be synced"));
        }
        state.renames.clear();
        state.synced_names = state.names.clone();
        Ok(())
    }
}

#[derive(Debug)]
struct File {
    disk: Disk,
    file: usize,
}

impl MediumFile for File {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.disk.lock().files[self.file].bytes.len() as u64)
    }

    fn read(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        let state = self.disk.lock();
        let at = usize::try_from(at).map_err(io::Error::other)?;
        let bytes = state.files[self.file].bytes.get(at..at + buffer.len());
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn forget(&self, _at: u64, _bytes: u64) -> io::Result<()> {
        let mut state = self.disk.lock();
        let file = &mut state.files[self.file];
        if let Some(written) = file.on_medium.take() {
            file.bytes = written;
        }
        Ok(())
    }

    fn reserve(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.disk.lock();
        state.step()?;
        state.check_room(self.file, usize::try_from(bytes).map_err(io::Error::other)?)
    }

    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let at = usize::try_from(at).map_err(io::Error::other)?;
        let mut state = self.disk.lock();
        let went_on = state.step();
        if went_on.is_ok() {
            state.check_room(self.file, at + bytes.len())?;
        }
        // What was being written when the power went may be there as well.
        if went_on.is_ok() || state.power_goes_at == Some(state.steps) {
            let file = &mut state.files[self.file];
            write_into(&mut file.bytes, at, bytes);
            file.writes.push((at, bytes.to_owned()));
            if went_on.is_err() {
                state.power_goes_at = None;
            }
        }
        went_on
    }

    fn sync(&self) -> io::Result<()> {
        let goes_on = &self.disk.0.goes_on;
        let waited = goes_on.wait_while(self.disk.lock(), |state| state.stalls);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        state.step()?;
        let fails = state.sync_fails;
        let file = &mut state.files[self.file];
        if fails {
            // As systems do: what could not be written counts as written from now on.
            file.writes.clear();
            file.on_medium.get_or_insert_with(|| file.synced.clone());
            return Err(io::Error::other("the file cannot be synced"));
        }
        file.writes.clear();
        file.synced = file.bytes.clone();
        Ok(())
    }
}
