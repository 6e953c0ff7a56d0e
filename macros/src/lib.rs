//! The derives of Kiln: `Clustered` for structs whose instances are shared, `Value` for the types of their fields.
//!
//! What they emit names `::kiln` only, holds no unsafe code, and brings nothing into scope. Absent: any knowledge of
//! types; whether a field's type can be shared is for the compiler to say, through the traits of `kiln`.

mod attribute;
mod clustered;
mod counters;
mod field;
mod guard;
mod local;
mod record;
mod recursion;
mod value;
mod view;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Makes the instances of a struct shareable. See the trait of the same name for what it writes and for the attributes.
#[proc_macro_derive(Clustered, attributes(clustered))]
pub fn derive_clustered(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    clustered::derive(&input).unwrap_or_else(|error| error.into_compile_error()).into()
}

/// Makes a struct or an enum a field type. See the trait of the same name; derive rkyv's traits beside it.
///
/// `#[value(rename = "name")]` on the type, a field or a variant keeps the name under which the cluster knows it, so
/// that a rename in the program is no change of structure.
#[proc_macro_derive(Value, attributes(value))]
pub fn derive_value(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    value::derive(&input).unwrap_or_else(|error| error.into_compile_error()).into()
}
