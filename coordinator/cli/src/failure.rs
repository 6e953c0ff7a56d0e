//! Why a command failed. Each says what, where, and what to do.

use crate::catalog::NoRoot;
use crate::client::ClientError;
use crate::data::DataError;
use crate::key::KeyError;
use crate::serve::ServeError;
use std::io;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    NoRoot(#[from] NoRoot),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("root `{root}` has no object `{key}`")]
    NoObject { root: String, key: String },
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(transparent)]
    Data(#[from] DataError),
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
}

impl Failure {
    /// The reader of our output has gone: nobody wants to hear of it.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}
