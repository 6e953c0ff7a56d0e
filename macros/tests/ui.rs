//! Every mistake with the derives, and what the compiler says to the user about it.
//!
//! To take over changed messages: `TRYBUILD=overwrite cargo test -p kiln-macros --test ui`, then read the difference.

#[test]
fn mistakes_are_explained() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
