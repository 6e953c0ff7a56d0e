//! A write and its sync, as a log without batching does them.

use crate::bench::clock::Laps;
use crate::bench::row::Figures;
use crate::bench::{Bench, BenchError};
use std::env;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;

const BLOCK_BYTES: usize = 4 << 10;
const BLOCKS: u64 = 4 << 10;

pub(super) async fn measure(bench: &Bench) -> Result<Figures, BenchError> {
    let measured = || -> io::Result<Figures> {
        let directory = env::current_dir()?;
        let mut file = tempfile::tempfile_in(&directory)?;
        let block = [0x5a; BLOCK_BYTES];
        // Written before, so that a sync has no metadata to write: as in a log whose segments are made ahead.
        for _ in 0..BLOCKS {
            file.write_all(&block)?;
        }
        file.sync_all()?;
        let mut laps = Laps::new(bench.secs());
        let mut at = 0;
        while let Some(lap) = laps.next() {
            file.write_all_at(&block, at * BLOCK_BYTES as u64)?;
            file.sync_data()?;
            laps.end(lap, 1);
            at = (at + 1) % BLOCKS;
        }
        Ok(Figures::micros(laps.times()).noted(format!("in {}", directory.display())))
    };
    measured().map_err(BenchError::Disk)
}
