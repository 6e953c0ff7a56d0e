//! What the derives write keeps the strictest lints, and leans on nothing that the user has in scope.
#![deny(missing_docs, missing_debug_implementations, unused, unreachable_pub, unused_qualifications)]
#![deny(clippy::pedantic, clippy::nursery, clippy::unwrap_used, clippy::allow_attributes)]

/// A model as a library would export it.
pub mod model {
    /// Where somebody lives.
    #[derive(Clone, Debug, Default, Eq, PartialEq, kiln::Clustered)]
    pub struct Address {
        /// The city.
        pub city: String,
        street: String,
        /// How often somebody looked.
        #[clustered(counter)]
        pub looks: i64,
    }

    /// Somebody.
    #[derive(Clone, Debug, Default, Eq, PartialEq, kiln::Clustered)]
    #[clustered(rename = "person")]
    pub struct Person {
        /// The name.
        pub name: String,
        /// Home.
        #[clustered(nested, lock = "home")]
        pub home: Address,
        age: u8,
        #[clustered(local)]
        seen: bool,
        /// What is in the basket.
        pub basket: kiln::Map<String, u32>,
        /// Fields may be named like anything.
        pub r#match: bool,
        /// Also like what the derive itself uses.
        pub base: u8,
        /// Also this.
        pub pinned: u8,
        /// And this.
        pub slot: u8,
    }

    impl PersonMut<'_> {
        /// A year has passed.
        pub fn birthday(&mut self) {
            *self.age += 1;
        }
    }

    impl PersonView<'_> {
        /// Whether the person is of age.
        #[must_use]
        pub fn is_of_age(&self) -> bool {
            self.age() >= 18 && !self.home().street().is_empty()
        }
    }
}

/// Nothing in scope, and common names taken.
#[expect(dead_code, reason = "names only")]
mod bare {
    #![no_implicit_prelude]

    // rkyv's derives name `Sized` alone.
    use ::core::marker::Sized;
    use ::kiln::rkyv;

    struct Result;
    struct Option;
    struct Vec;
    struct Default;
    struct Object;
    trait Clone {}
    const fn drop() {}

    #[derive(::kiln::Value, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize, ::core::default::Default)]
    #[rkyv(crate = ::kiln::rkyv)]
    struct Money {
        cents: i64,
        currency: [u8; 3],
    }

    #[derive(::kiln::Clustered)]
    struct Account {
        owner: ::std::string::String,
        balance: Money,
        #[clustered(default = 5)]
        limit: u64,
        #[clustered(counter)]
        visits: i64,
        #[clustered(nested)]
        inner: Inner,
        #[clustered(local)]
        scratch: ::std::vec::Vec<u8>,
    }

    #[derive(::kiln::Clustered)]
    struct Inner {
        value: u32,
    }
}

/// Types named as others name their parameters.
mod letters {
    #[derive(kiln::Clustered)]
    struct S {
        t: T,
        #[clustered(counter)]
        c: i64,
        #[clustered(nested)]
        k: K,
    }

    #[derive(kiln::Clustered)]
    struct K {
        #[clustered(counter)]
        c: i64,
    }

    type T = u64;
}

#[test]
fn names_are_those_of_the_attributes() {
    use kiln::Clustered as _;
    let names: Vec<_> = model::Person::FIELDS.iter().map(|field| field.name).collect();
    let expected =
        ["name", "home.city", "home.street", "home.looks", "age", "basket", "match", "base", "pinned", "slot"];
    assert_eq!((model::Person::NAME, names.as_slice()), ("person", &expected[..]));
}
