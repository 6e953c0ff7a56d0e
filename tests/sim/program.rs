//! What the simulated programs share: two versions of one type, and the fields that the checks know.

use kiln::{Changes, Clustered, Map};
use kiln_engine::Entry;
use kiln_tests::{Line, Session};

/// A field that the tasks change.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Field {
    Visits,
    Clicks,
    Balance,
}

impl Field {
    pub(crate) const ALL: [Self; 3] = [Self::Visits, Self::Clicks, Self::Balance];

    /// Its slot in the local struct, in both versions.
    pub(crate) const fn slot(self) -> u16 {
        match self {
            Self::Visits => 2,
            Self::Clicks => 3,
            Self::Balance => 5,
        }
    }

    /// The local index of the lock group that guards it.
    pub(crate) const fn group(self) -> Option<usize> {
        match self {
            Self::Visits => Some(0),
            Self::Clicks => None,
            Self::Balance => Some(1),
        }
    }

    /// By its name in the cluster.
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "visits" => Some(Self::Visits),
            "clicks" => Some(Self::Clicks),
            "balance" => Some(Self::Balance),
            _ => None,
        }
    }

    /// What the copy here shows.
    pub(crate) fn of(self, entry: &Entry) -> i64 {
        entry.object.scalar(self.slot()).cast_signed()
    }
}

/// A version of the program: how it changes the fields that all versions know.
pub(crate) trait Program: Clustered + Default {
    fn add(guard: &mut Self::Mut<'_>, field: Field, amount: i64);
    fn set_theme(guard: &mut Self::Mut<'_>, theme: String);
    /// A new value with this theme.
    fn themed(theme: String) -> Self;

    /// The changes that `change` makes to an object.
    fn changes(entry: &Entry, change: impl FnOnce(&mut Self::Mut<'_>)) -> Changes {
        let mut guard = Self::guard(&entry.object);
        change(&mut guard);
        let mut changes = Changes::new();
        Self::collect(&mut guard, &mut changes).expect("it can be stored");
        changes
    }
}

/// The next version of [`Session`]: a field more, in a lock group of its own.
#[derive(Clustered, Debug, Default)]
#[clustered(rename = "TestSession")]
pub(crate) struct Later {
    pub(crate) user: Option<String>,
    pub(crate) theme: String,
    pub(crate) visits: u64,
    #[clustered(counter)]
    pub(crate) clicks: i64,
    pub(crate) cart: Map<String, Line>,
    #[clustered(lock = "money")]
    pub(crate) balance: i64,
    #[clustered(lock = "money")]
    pub(crate) currency: String,
    #[clustered(lock = "notes")]
    pub(crate) notes: i64,
}

macro_rules! program {
    ($version:ty) => {
        impl Program for $version {
            fn add(guard: &mut Self::Mut<'_>, field: Field, amount: i64) {
                match field {
                    Field::Visits => *guard.visits = guard.visits.wrapping_add_signed(amount),
                    Field::Clicks => guard.clicks.add(amount),
                    Field::Balance => *guard.balance += amount,
                }
            }

            fn set_theme(guard: &mut Self::Mut<'_>, theme: String) {
                guard.theme.set(theme);
            }

            fn themed(theme: String) -> Self {
                Self { theme, ..Self::default() }
            }
        }
    };
}
program!(Session);
program!(Later);

/// What stands for a named lock.
#[derive(Clustered, Debug, Default)]
pub(crate) struct Named {
    pub(crate) nothing: u64,
}
