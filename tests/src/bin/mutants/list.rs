//! The bugs: what is replaced by what, and which invariant that breaks.

use serde::Deserialize;
use std::error::Error;
use std::path::Path;

/// In a replacement: whether this bug is the one that is switched on.
const SWITCH: &str = "MUTANT";

/// One bug.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mutant {
    /// Its name, for the switch.
    pub(crate) name: String,
    /// The invariant of DESIGN that it breaks.
    pub(crate) breaks: String,
    /// What it does.
    pub(crate) what: String,
    /// The file, from the workspace's root.
    pub(crate) file: String,
    /// What is there, exactly once.
    find: String,
    /// What takes its place.
    put: String,
    /// Whether it takes a coordinator that keeps its state on disk.
    #[serde(default)]
    pub(crate) disk: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    mutant: Vec<Mutant>,
}

/// All bugs, in the order of the invariants.
pub(crate) fn read(directory: &Path) -> Result<Vec<Mutant>, Box<dyn Error>> {
    let mut all = Vec::new();
    for file in std::fs::read_dir(directory)? {
        let path = file?.path();
        let text = std::fs::read_to_string(&path)?;
        let file: File = toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        all.extend(file.mutant);
    }
    let number = |mutant: &Mutant| mutant.breaks.get(1..).and_then(|number| number.parse::<u32>().ok());
    all.sort_by(|one, other| {
        let key = |mutant| (Mutant::is_liveness(mutant), number(mutant), mutant.name.clone());
        key(one).cmp(&key(other))
    });
    if let Some(pair) = all.windows(2).find(|pair| pair[0].name == pair[1].name) {
        return Err(format!("two bugs are called `{}`", pair[0].name).into());
    }
    Ok(all)
}

impl Mutant {
    fn is_liveness(&self) -> bool {
        self.breaks.starts_with('L')
    }

    /// The file with this bug in it, switched off.
    pub(crate) fn plant(&self, text: &str) -> Result<String, String> {
        let Self { name, file, find, put, .. } = self;
        if !put.contains(SWITCH) {
            return Err(format!("`{name}` has no switch: write {SWITCH} where it is"));
        }
        match text.matches(&**find).count() {
            1 => Ok(text.replace(&**find, &put.replace(SWITCH, &format!("::kiln_protocol::mutant({name:?})")))),
            count => {
                Err(format!("`{name}`: what it replaces is {count} times in {file}, not once: mend tests/mutants"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn each_bug_has_its_place() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut files = BTreeMap::new();
        let mut misplaced = Vec::new();
        for mutant in read(&source.join("tests/mutants")).unwrap() {
            let read = || std::fs::read_to_string(source.join(&mutant.file)).unwrap();
            let text = files.entry(mutant.file.clone()).or_insert_with(read);
            match mutant.plant(text) {
                Ok(planted) => *text = planted,
                Err(error) => misplaced.push(error),
            }
        }
        assert_eq!(misplaced, Vec::<String>::new());
    }
}
