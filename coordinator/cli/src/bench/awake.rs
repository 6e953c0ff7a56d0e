//! Keeps idle CPUs from halting while it lives: `--keep-awake`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};

/// Holding this open with a latency of zero forbids the idle states that take long to leave.
const DEVICE: &str = "/dev/cpu_dma_latency";

/// Idle CPUs poll instead of halting until this is dropped.
pub(super) struct Awake {
    _device: File,
}

impl Awake {
    /// # Errors
    /// When the device is not there, or not for us.
    pub(super) fn hold() -> io::Result<Self> {
        let mut device = OpenOptions::new().write(true).open(DEVICE)?;
        device.write_all(&0_i32.to_le_bytes())?;
        Ok(Self { _device: device })
    }

    /// What the run says about it.
    pub(super) fn describe(held: Option<&io::Result<Self>>) -> String {
        match held {
            None => "idle CPUs may halt (see --keep-awake)".into(),
            Some(Ok(_)) => format!("idle CPUs are kept awake through {DEVICE}"),
            Some(Err(error)) => format!(
                "--keep-awake is NOT in effect: {DEVICE} cannot be held ({error}); run as root, or compare with figures \
                 of CPUs that halt only"
            ),
        }
    }
}
