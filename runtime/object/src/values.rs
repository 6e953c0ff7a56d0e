//! `Value` for the standard library's types.
//!
//! Absent: `HashMap` and `HashSet` (their archives depend on the order of iteration), `Rc` and `Arc` (sharing ends at a
//! process), references, `usize` and `isize` (their width is the machine's), `SystemTime` (rkyv has no archive of it),
//! `Instant` (it means nothing to another machine).

use crate::form::{ArchiveForm, TextForm};
use crate::value::Value;
use kiln_protocol::structure::Structure;
use rkyv::Archive;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::time::Duration;

impl Value for String {
    type Form = TextForm;
    type ListForm = ArchiveForm;
    const STRUCTURE: Structure<'static> = Structure::String;
}

impl<T: Value> Value for Vec<T> {
    type Form = T::ListForm;
    type ListForm = ArchiveForm;
    const STRUCTURE: Structure<'static> = {
        // A peer could claim four billion of them in an archive of a few bytes.
        assert!(
            size_of::<T::Archived>() > 0,
            "a `Vec` of values without content says no more than its length: use a number instead"
        );
        T::LIST_STRUCTURE
    };
}

/// Types whose one form is an archive.
macro_rules! archives {
    ($([$($parameter:ident),*] $value:ty => $structure:expr;)*) => { $(
        impl<$($parameter: Value),*> Value for $value {
            type Form = ArchiveForm;
            type ListForm = ArchiveForm;
            const STRUCTURE: Structure<'static> = $structure;
        }
    )* };
}

archives! {
    [] () => Structure::Unit;
    [] u128 => Structure::U128;
    [] i128 => Structure::I128;
    [] Duration => Structure::Duration;
    [] IpAddr => Structure::IpAddr;
    [] Ipv4Addr => Structure::Ipv4Addr;
    [] Ipv6Addr => Structure::Ipv6Addr;
    [] SocketAddr => Structure::SocketAddr;
    [] SocketAddrV4 => Structure::SocketAddrV4;
    [] SocketAddrV6 => Structure::SocketAddrV6;
    [T] Option<T> => Structure::Option(&T::STRUCTURE);
    [T] Box<T> => Structure::Box(&T::STRUCTURE);
    [A] (A,) => Structure::Tuple(&[A::STRUCTURE]);
    [A, B] (A, B) => Structure::Tuple(&[A::STRUCTURE, B::STRUCTURE]);
    [A, B, C] (A, B, C) => Structure::Tuple(&[A::STRUCTURE, B::STRUCTURE, C::STRUCTURE]);
    [A, B, C, D] (A, B, C, D) => Structure::Tuple(&[A::STRUCTURE, B::STRUCTURE, C::STRUCTURE, D::STRUCTURE]);
    [A, B, C, D, E] (A, B, C, D, E)
        => Structure::Tuple(&[A::STRUCTURE, B::STRUCTURE, C::STRUCTURE, D::STRUCTURE, E::STRUCTURE]);
    [A, B, C, D, E, F] (A, B, C, D, E, F)
        => Structure::Tuple(&[A::STRUCTURE, B::STRUCTURE, C::STRUCTURE, D::STRUCTURE, E::STRUCTURE, F::STRUCTURE]);
}

impl<K: Value + Ord + Archive<Archived: Ord>, V: Value> Value for BTreeMap<K, V> {
    type Form = ArchiveForm;
    type ListForm = ArchiveForm;
    const STRUCTURE: Structure<'static> = Structure::BTreeMap(&K::STRUCTURE, &V::STRUCTURE);
}

impl<T: Value + Ord + Archive<Archived: Ord>> Value for BTreeSet<T> {
    type Form = ArchiveForm;
    type ListForm = ArchiveForm;
    const STRUCTURE: Structure<'static> = Structure::BTreeSet(&T::STRUCTURE);
}

impl<T: Value, const N: usize> Value for [T; N] {
    type Form = ArchiveForm;
    type ListForm = ArchiveForm;
    const STRUCTURE: Structure<'static> = Structure::Array(&T::STRUCTURE, N);
}
