//! Example programs; each is a binary of its own beside this file's directory. `shop` is the main one.
//!
//! Absent: any library. This crate only compiles and runs the code in the README.

/// The code in the README is a test.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
