//! What the shop sells.

/// One of the shop's pots.
#[derive(Debug)]
pub(crate) struct Product {
    /// Its key in carts.
    pub(crate) sku: &'static str,
    pub(crate) name: &'static str,
    pub(crate) blurb: &'static str,
    pub(crate) cents: u32,
}

/// All of them.
pub(crate) const PRODUCTS: [Product; 8] = [
    product("mug", "Breakfast mug", "Holds a third of a litre, and its heat.", 1800),
    product("bowl", "Rice bowl", "Thrown thin, glazed in celadon.", 2200),
    product("plate", "Dinner plate", "Flat where it should be.", 2600),
    product("jug", "Water jug", "Pours without a drip.", 4400),
    product("teapot", "Teapot", "For two, or for one who is thirsty.", 6900),
    product("vase", "Tall vase", "For three stems and no more.", 5200),
    product("dish", "Baking dish", "Comes out of a hotter oven than yours.", 3900),
    product("tile", "Test tile", "What a glaze looks like before it is a bowl.", 400),
];

const fn product(sku: &'static str, name: &'static str, blurb: &'static str, cents: u32) -> Product {
    Product { sku, name, blurb, cents }
}

/// The product with this key.
pub(crate) fn find(sku: &str) -> Option<&'static Product> {
    PRODUCTS.iter().find(|product| product.sku == sku)
}
