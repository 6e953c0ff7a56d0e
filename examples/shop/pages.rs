//! The pages: HTML made on the node, no script. Whatever a visitor typed goes through [`text`].

use crate::catalogue::{PRODUCTS, find};
use crate::session::{Order, Snapshot};
use axum::response::Html;
use kiln::Stats;
use std::collections::BTreeMap;
use std::fmt;

/// The style sheet.
pub(crate) const STYLE: &str = include_str!("style.css");

/// What every page shows around its own content.
pub(crate) struct Frame {
    /// This node's name.
    pub(crate) node: String,
    /// The other node's address.
    pub(crate) peer: Option<String>,
    pub(crate) session: Option<Snapshot>,
    pub(crate) themes: &'static [&'static str],
}

/// Text as HTML shows it, in content and in quoted attributes.
struct Text<'a>(&'a str);

/// Marks text that is not HTML.
const fn text(text: &str) -> Text<'_> {
    Text(text)
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some(at) = rest.find(['&', '<', '>', '"', '\'']) {
            f.write_str(&rest[..at])?;
            f.write_str(match rest.as_bytes()[at] {
                b'&' => "&amp;",
                b'<' => "&lt;",
                b'>' => "&gt;",
                b'"' => "&quot;",
                _ => "&#39;",
            })?;
            rest = &rest[at + 1..];
        }
        f.write_str(rest)
    }
}

/// A sum of money.
struct Money(u64);

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "€{}.{:02}", self.0 / 100, self.0 % 100)
    }
}

fn document(title: &str, theme: &str, body: &str) -> Html<String> {
    Html(format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title} - Kiln pots</title>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <link rel=\"stylesheet\" href=\"/style.css\"></head>\n<body class=\"{theme}\">\n{body}\n</body></html>\n",
        title = text(title),
        theme = text(theme),
    ))
}

fn page(frame: &Frame, title: &str, path: &str, content: &str) -> Html<String> {
    let session = frame.session.as_ref();
    let pieces = session.map_or(0, Snapshot::pieces);
    let who = match session.and_then(|session| session.user.as_deref()) {
        Some(user) => format!(
            "<a href=\"/session\">{}</a><form method=\"post\" action=\"/logout\"><button class=\"quiet\">Log out</button></form>",
            text(user)
        ),
        None => "<a href=\"/login\">Log in</a>".to_owned(),
    };
    let peer = frame.peer.as_deref().map_or_else(String::new, |peer| {
        format!(
            "<a href=\"{peer}{path}\">See this page on the other node</a> ({peer})",
            peer = text(peer),
            path = text(path)
        )
    });
    let body = format!(
        "<header><a class=\"brand\" href=\"/\">Kiln pots</a><nav><a href=\"/cart\">Cart ({pieces})</a>{who}</nav></header>\n\
         <main><h1>{title}</h1>\n{content}\n</main>\n<footer>Served by <b>{node}</b>. {peer}</footer>",
        title = text(title),
        node = text(&frame.node),
    );
    document(title, session.map_or("", |session| session.theme.as_str()), &body)
}

/// A page with one sentence, for those who have no session or no luck.
pub(crate) fn notice(title: &str, sentence: &str) -> Html<String> {
    let body = format!(
        "<header><a class=\"brand\" href=\"/\">Kiln pots</a></header>\n<main><h1>{}</h1><p>{}</p>\
         <p><a href=\"/\">To the shop</a> <a href=\"/login\">Log in</a></p></main>",
        text(title),
        text(sentence)
    );
    document(title, "", &body)
}

/// The shop's front: what there is, and what was sold of it on both nodes.
pub(crate) fn front(frame: &Frame, sold: &BTreeMap<String, u64>) -> Html<String> {
    let greeting = frame.session.as_ref().map_or_else(
        || "<p>Log in, or just begin: your cart is on both nodes.</p>".to_owned(),
        |session| {
            let user = session.user.as_deref().map_or_else(String::new, |user| format!(", {}", text(user)));
            format!("<p>Welcome{user}. This is visit <b>{}</b>, counted on both nodes.</p>", session.visits)
        },
    );
    let products = PRODUCTS.iter().map(|product| {
        let sold = sold.get(product.sku).map_or_else(String::new, |pieces| format!("<small>{pieces} sold</small>"));
        format!(
            "<li><h2>{name}</h2><p>{blurb}</p><form method=\"post\" action=\"/cart/add\">\
             <input type=\"hidden\" name=\"sku\" value=\"{sku}\"><b>{price}</b> {sold}<button>Add</button></form></li>\n",
            name = text(product.name),
            blurb = text(product.blurb),
            sku = text(product.sku),
            price = Money(product.cents.into()),
        )
    });
    let products: String = products.collect();
    page(frame, "Pots", "/", &format!("{greeting}\n<ul class=\"products\">\n{products}</ul>"))
}

/// The form to log in.
pub(crate) fn login(frame: &Frame) -> Html<String> {
    let content = "<form method=\"post\" action=\"/login\" class=\"card\"><label>Your name \
                   <input name=\"name\" maxlength=\"40\" required autofocus></label><button>Log in</button>\
                   <p>Any name will do; there is no password here.</p></form>";
    page(frame, "Log in", "/login", content)
}

/// The cart.
pub(crate) fn cart(frame: &Frame) -> Html<String> {
    let session = frame.session.as_ref().filter(|session| !session.cart.is_empty());
    let Some(session) = session else {
        return page(frame, "Your cart", "/cart", "<p>There is nothing in it. <a href=\"/\">Look around</a></p>");
    };
    let lines = session.cart.iter().map(|(sku, line)| {
        let name = find(sku).map_or(sku.as_str(), |product| product.name);
        format!(
            "<tr><td>{name}</td><td><form method=\"post\" action=\"/cart/set\">\
             <input type=\"hidden\" name=\"sku\" value=\"{sku}\">\
             <input type=\"number\" name=\"quantity\" min=\"0\" max=\"999\" value=\"{quantity}\" aria-label=\"Quantity\">\
             <button class=\"quiet\">Change</button></form></td>\
             <td>{sum}</td><td><form method=\"post\" action=\"/cart/set\">\
             <input type=\"hidden\" name=\"sku\" value=\"{sku}\"><input type=\"hidden\" name=\"quantity\" value=\"0\">\
             <button class=\"quiet\">Remove</button></form></td></tr>\n",
            name = text(name),
            sku = text(sku),
            quantity = line.quantity,
            sum = Money(u64::from(line.quantity) * u64::from(line.cents)),
        )
    });
    let lines: String = lines.collect();
    let pay = if session.user.is_some() {
        "<form method=\"post\" action=\"/checkout\"><button>Pay</button></form>"
    } else {
        "<p><a href=\"/login\">Log in</a> to pay; the cart stays.</p>"
    };
    let content = format!(
        "<table>\n{lines}<tr><th>Together</th><td></td><th>{}</th><td></td></tr></table>\n{pay}",
        Money(session.cents())
    );
    page(frame, "Your cart", "/cart", &content)
}

/// The thanks for an order.
pub(crate) fn ordered(frame: &Frame, order: &Order) -> Html<String> {
    let (pieces, sum) = (order.pieces, Money(order.cents));
    let content = format!("<p>{pieces} pieces for {sum} are on their way. <a href=\"/\">Go on</a></p>");
    page(frame, "Thank you", "/session", &content)
}

/// What this node holds of the session.
pub(crate) fn session(frame: &Frame, held: &str, stats: &Stats) -> Html<String> {
    let Some(session) = &frame.session else {
        return page(frame, "Your session", "/session", "<p>There is none.</p>");
    };
    let themes = frame.themes.iter().map(|theme| {
        format!("<button class=\"quiet\" name=\"theme\" value=\"{theme}\">{theme}</button>", theme = text(theme))
    });
    let themes: String = themes.collect();
    let orders = session.orders.iter().map(|order| format!("{} pieces for {}<br>", order.pieces, Money(order.cents)));
    let orders: String = orders.collect();
    let content = format!(
        "<p>This page was read from the node's own memory: {held}.</p>\n<table>\
         <tr><th>user</th><td>{user}</td></tr><tr><th>visits</th><td>{visits}</td></tr>\
         <tr><th>clicks</th><td>{clicks}</td></tr><tr><th>theme</th><td>{theme}</td></tr>\
         <tr><th>note</th><td>{note}</td></tr><tr><th>cart</th><td>{pieces} pieces</td></tr>\
         <tr><th>orders</th><td>{orders}</td></tr></table>\n\
         <form method=\"post\" action=\"/theme\">Theme: {themes}</form>\n\
         <form method=\"post\" action=\"/note\"><label>A note for the parcel \
         <input name=\"note\" maxlength=\"500\" value=\"{note}\"></label><button class=\"quiet\">Keep</button></form>\n\
         <p><small>This node: {objects} objects in {bytes} bytes, {commits} commits, {faults} fetches, \
         {recalls} locks handed back.</small></p>",
        held = text(held),
        user = text(session.user.as_deref().unwrap_or("nobody yet")),
        visits = session.visits,
        clicks = session.clicks,
        theme = text(&session.theme),
        note = text(&session.note),
        pieces = session.pieces(),
        objects = stats.resident_objects,
        bytes = stats.resident_bytes,
        commits = stats.commits,
        faults = stats.faults,
        recalls = stats.recalls,
    );
    page(frame, "Your session", "/session", &content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::CartLine;

    #[test]
    fn text_cannot_become_markup() {
        let shown = text("<script>\"a\" & 'b'</script> ü").to_string();
        assert_eq!(shown, "&lt;script&gt;&quot;a&quot; &amp; &#39;b&#39;&lt;/script&gt; ü");
        assert_eq!(text("").to_string(), "");
        assert_eq!(text("<>").to_string(), "&lt;&gt;");
    }

    /// Every place where something of a visitor is shown.
    #[test]
    fn no_page_shows_a_visitors_markup() {
        let hostile = "\"><b onclick='x'>";
        let line = CartLine { quantity: 2, cents: 5 };
        let snapshot = Snapshot {
            user: Some(hostile.to_owned()),
            theme: hostile.to_owned(),
            note: hostile.to_owned(),
            cart: vec![(hostile.to_owned(), line)],
            ..Snapshot::default()
        };
        let frame = Frame {
            node: "web-1".to_owned(),
            peer: Some(format!("http://{hostile}")),
            session: Some(snapshot),
            themes: &["clay"],
        };
        let order = Order { pieces: 1, cents: 2 };
        let pages = [
            front(&frame, &BTreeMap::new()),
            login(&frame),
            cart(&frame),
            ordered(&frame, &order),
            session(&frame, hostile, &Stats::default()),
            notice(hostile, hostile),
        ];
        for Html(page) in pages {
            assert!(page.contains("&lt;b onclick=&#39;x&#39;&gt;"), "{page}");
            assert!(!page.contains("<b onclick") && !page.contains("\">&lt;b\""), "{page}");
        }
    }

    #[test]
    fn money_has_two_digits_of_cents() {
        assert_eq!(Money(1800).to_string(), "€18.00");
        assert_eq!(Money(5).to_string(), "€0.05");
    }
}
