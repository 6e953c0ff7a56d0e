//! Structural descriptions.
