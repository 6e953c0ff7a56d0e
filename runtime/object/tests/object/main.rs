//! The typed layer over a real heap: what the derives write, guards, views, maps and nested structs.

// The derives' output names `::kiln`.
extern crate kiln_object as kiln;

mod addresses;
mod derive;
mod guards;
mod maps;
mod nested;
mod stage;
