//! What the nodes share: the visitors' sessions, and what was sold.

use crate::catalogue::Product;
use kiln::{Clustered, Map, Value, rkyv};
use serde::{Deserialize, Serialize};

/// The most pieces of one product in a cart.
pub(crate) const QUANTITY_MAX: u32 = 100_000;

/// The session of one visitor.
#[derive(Clustered, Debug)]
pub(crate) struct Session {
    /// Who it is; `None` before the login.
    pub(crate) user: Option<String>,
    /// How pages look.
    pub(crate) theme: String,
    /// How often the shop's front page was seen: a plain number, so it is counted under the lock.
    pub(crate) visits: u64,
    /// A message for the parcel.
    pub(crate) note: String,
    /// Requests of any kind: it only adds, so it needs no lock.
    #[clustered(counter)]
    pub(crate) clicks: i64,
    /// The cart has a lock of its own: whoever changes it does not wait for the visits.
    #[clustered(lock = "cart")]
    pub(crate) cart: Map<String, CartLine>,
    /// What was ordered, oldest first.
    #[clustered(lock = "cart")]
    pub(crate) orders: Vec<Order>,
}

/// A new visitor's.
impl Default for Session {
    fn default() -> Self {
        Self {
            user: None,
            theme: THEMES[0].to_owned(),
            visits: 0,
            note: String::new(),
            clicks: 0,
            cart: Map::new(),
            orders: Vec::new(),
        }
    }
}

/// The looks there are.
pub(crate) const THEMES: [&str; 3] = ["clay", "celadon", "night"];
/// The name of the lock group of the cart.
pub(crate) const CART: &str = "cart";
/// The name of the lock group of fields that name none.
pub(crate) const REST: &str = "";

/// One product in a cart.
#[derive(
    Clone, Debug, Deserialize, Eq, PartialEq, Serialize, Value, rkyv::Archive, rkyv::Deserialize, rkyv::Serialize,
)]
#[rkyv(crate = kiln::rkyv)]
pub(crate) struct CartLine {
    pub(crate) quantity: u32,
    /// The price of one piece when it was put in.
    pub(crate) cents: u32,
}

/// One order.
#[derive(
    Clone, Debug, Deserialize, Eq, PartialEq, Serialize, Value, rkyv::Archive, rkyv::Deserialize, rkyv::Serialize,
)]
#[rkyv(crate = kiln::rkyv)]
pub(crate) struct Order {
    pub(crate) pieces: u32,
    pub(crate) cents: u64,
}

/// What all visitors bought: one object for the whole shop.
#[derive(Clustered, Debug, Default)]
pub(crate) struct Sales {
    pub(crate) orders: u64,
    /// Pieces by product.
    pub(crate) sold: Map<String, u64>,
}

/// The user's own methods on the guard: they change the session under its lock, and only what they touch is sent.
impl SessionMut<'_> {
    /// Puts one more piece into the cart. Returns how many there are.
    pub(crate) fn add_to_cart(&mut self, product: &Product) -> u32 {
        let line =
            self.cart.get_or_insert_with(product.sku.to_owned(), || CartLine { quantity: 0, cents: product.cents });
        line.quantity = line.quantity.saturating_add(1).min(QUANTITY_MAX);
        line.quantity
    }

    /// Sets how many pieces there are; none takes the product out.
    pub(crate) fn set_quantity(&mut self, product: &Product, quantity: u32) {
        if quantity == 0 {
            self.cart.remove(product.sku);
        } else {
            let quantity = quantity.min(QUANTITY_MAX);
            self.cart.insert(product.sku.to_owned(), CartLine { quantity, cents: product.cents });
        }
    }

    /// Makes an order of what is in the cart, and empties it. `None` when it is empty.
    pub(crate) fn order(&mut self, sales: &mut SalesMut<'_>) -> Option<Order> {
        let lines: Vec<_> = self.cart.iter().collect();
        let order = Order {
            pieces: lines.iter().map(|(_, line)| line.quantity).sum(),
            cents: lines.iter().map(|(_, line)| u64::from(line.quantity) * u64::from(line.cents)).sum(),
        };
        if order.pieces == 0 {
            return None;
        }
        for (sku, line) in lines {
            *sales.sold.get_or_insert_with(sku, u64::default) += u64::from(line.quantity);
        }
        *sales.orders += 1;
        self.cart.clear();
        self.orders.push(order.clone());
        Some(order)
    }
}

/// A copy of a session, to be shown.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Snapshot {
    pub(crate) user: Option<String>,
    pub(crate) theme: String,
    pub(crate) visits: u64,
    pub(crate) note: String,
    pub(crate) clicks: i64,
    /// Key, and line.
    pub(crate) cart: Vec<(String, CartLine)>,
    pub(crate) orders: Vec<Order>,
}

impl SessionView<'_> {
    /// A copy of all that is shared.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let cart = self.cart();
        let lines = cart
            .iter()
            .map(|(sku, line)| (sku, CartLine { quantity: line.quantity.to_native(), cents: line.cents.to_native() }));
        let orders = self.orders();
        Snapshot {
            user: self.user().as_ref().map(|user| user.as_str().to_owned()),
            theme: self.theme().to_owned(),
            visits: self.visits(),
            note: self.note().to_owned(),
            clicks: self.clicks(),
            cart: lines.collect(),
            orders: orders
                .iter()
                .map(|order| Order { pieces: order.pieces.to_native(), cents: order.cents.to_native() })
                .collect(),
        }
    }
}

impl Snapshot {
    /// How many pieces of a product are in the cart.
    pub(crate) fn quantity(&self, sku: &str) -> u32 {
        self.cart.iter().find(|(key, _)| key == sku).map_or(0, |(_, line)| line.quantity)
    }

    /// All pieces in the cart.
    pub(crate) fn pieces(&self) -> u32 {
        self.cart.iter().map(|(_, line)| line.quantity).sum()
    }

    /// What they cost.
    pub(crate) fn cents(&self) -> u64 {
        self.cart.iter().map(|(_, line)| u64::from(line.quantity) * u64::from(line.cents)).sum()
    }
}
