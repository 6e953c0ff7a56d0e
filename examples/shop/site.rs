//! What a node of the shop answers. All that a visitor has is in the session, and the session is the same object on
//! both nodes: there is no "load", and no "save".

use crate::catalogue::{self, Product};
use crate::pages::{self, Frame};
use crate::request::{COOKIE_NAME, Filled, host};
use crate::session::{CART, QUANTITY_MAX, REST, Sales, Session, SessionCounters as _, Snapshot, THEMES};
use crate::trouble::Trouble;
use crate::visitor::{Anybody, Visitor};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::map_response;
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use kiln::{Root, Runtime, Shared};
use kiln_sessions::{Cookie, SessionError, SessionLayer};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

const FORM_BYTES_MAX: usize = 4096;
const NAME_CHARS_MAX: usize = 40;
const NOTE_CHARS_MAX: usize = 500;
/// What a payment service takes to answer.
const CHARGE_TIME: Duration = Duration::from_millis(20);

/// One node's share of the shop.
#[derive(Clone)]
pub(crate) struct Site {
    kiln: Runtime,
    sessions: SessionLayer<Session>,
    sales: Shared<Sales>,
    /// The other node's port, once it is known.
    peer: Arc<OnceLock<u16>>,
}

impl Site {
    /// Opens the roots of the shop.
    pub(crate) async fn open(kiln: Runtime, peer: Arc<OnceLock<u16>>) -> Result<Self, SessionError> {
        // The shop is on 127.0.0.1, without TLS.
        let cookie = Cookie::named(COOKIE_NAME).secure(false);
        let sessions = SessionLayer::new(&kiln).cookie(cookie).opened().await?;
        let shops: Root<String, Sales> = kiln.root("shops").await?;
        let sales = shops.get_or_create("pots", Sales::default).await?;
        Ok(Self { kiln, sessions, sales, peer })
    }

    /// The pages.
    pub(crate) fn router(self) -> Router {
        Router::new()
            .route("/", get(front))
            .route("/login", get(login_page).post(login))
            .route("/logout", post(logout))
            .route("/cart", get(cart_page))
            .route("/cart/add", post(add))
            .route("/cart/set", post(set))
            .route("/checkout", post(checkout))
            .route("/theme", post(theme))
            .route("/note", post(note))
            .route("/session", get(session_page))
            .route("/session.json", get(session_json))
            .route("/sales.json", get(sales_json))
            .route("/style.css", get(async || ([(CONTENT_TYPE, "text/css")], pages::STYLE)))
            .layer(self.sessions.clone())
            .layer(DefaultBodyLimit::max(FORM_BYTES_MAX))
            .layer(map_response(harden))
            .with_state(self)
    }

    /// What every page shows, for this visitor.
    fn frame(&self, headers: &HeaderMap, session: &kiln_sessions::Session<Session>) -> Frame {
        let peer = self.peer.get().map(|port| format!("http://{}:{port}", host(headers)));
        let session = session.get(|session| session.snapshot());
        Frame { node: self.kiln.node().name, peer, session, themes: &THEMES }
    }
}

/// Headers of every answer: pages are one visitor's own, and hold no script.
async fn harden(mut response: Response) -> Response {
    let policy = "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Counts a visit: read, add one, write. Two nodes doing so at once lose none, because the lock is the cluster's.
async fn front(
    State(site): State<Site>,
    headers: HeaderMap,
    Anybody(session): Anybody,
) -> Result<Html<String>, Trouble> {
    if let Some(object) = session.handle() {
        object.clicks().add(1)?;
        let mut guard = session.write_group(REST).await?;
        *guard.visits += 1;
        guard.commit().await?;
    }
    let sold = site.sales.get(|sales| sales.sold().iter().collect::<BTreeMap<_, _>>());
    Ok(pages::front(&site.frame(&headers, &session), &sold))
}

async fn login_page(State(site): State<Site>, headers: HeaderMap, Anybody(session): Anybody) -> Html<String> {
    pages::login(&site.frame(&headers, &session))
}

#[derive(Deserialize)]
struct Login {
    name: String,
}

/// A visitor without a name keeps the cart, and gets a new id, so that an id somebody planted before is of no use.
async fn login(Anybody(mut session): Anybody, Filled(form): Filled<Login>) -> Result<Redirect, Trouble> {
    let name = form.name.trim();
    // The replacement character stands for bytes that were no text.
    let is_odd = |letter: char| letter.is_control() || letter == char::REPLACEMENT_CHARACTER;
    if name.is_empty() || name.chars().count() > NAME_CHARS_MAX || name.chars().any(is_odd) {
        return Err(Trouble::BadForm("A name has 1 to 40 letters."));
    }
    let is_somebody = session.read().await?.is_some_and(|guard| guard.get(|session| session.user().is_some()));
    if is_somebody {
        session.destroy().await?;
    } else {
        session.rotate().await?;
    }
    session.update(|session| session.user.set(Some(name.to_owned()))).await?;
    session.open().await?.clicks().add(1)?;
    Ok(Redirect::to("/"))
}

/// Ends the session on every node before it answers. A slow request that has it in hand cannot bring it back: its
/// commit is refused.
async fn logout(Anybody(mut session): Anybody) -> Result<Redirect, Trouble> {
    session.destroy().await?;
    Ok(Redirect::to("/"))
}

async fn cart_page(
    State(site): State<Site>,
    headers: HeaderMap,
    Anybody(session): Anybody,
) -> Result<Html<String>, Trouble> {
    if let Some(object) = session.handle() {
        object.clicks().add(1)?;
    }
    Ok(pages::cart(&site.frame(&headers, &session)))
}

#[derive(Deserialize)]
struct Line {
    sku: String,
    quantity: Option<u32>,
}

impl Line {
    fn product(&self) -> Result<&'static Product, Trouble> {
        catalogue::find(&self.sku).ok_or(Trouble::BadForm("The shop has no such pot."))
    }
}

/// Only the cart's lock is taken, and only the one line is sent. Without a session there is one from now on.
async fn add(Anybody(session): Anybody, Filled(line): Filled<Line>) -> Result<Redirect, Trouble> {
    let product = line.product()?;
    // Whoever had a session and lost it is told, instead of shopping on in a new one.
    if session.is_lost() {
        return Err(Trouble::LoggedOut);
    }
    session.open().await?.clicks().add(1)?;
    let mut guard = session.write_group(CART).await?;
    guard.add_to_cart(product);
    guard.commit().await?;
    Ok(Redirect::to("/cart"))
}

async fn set(Visitor(session): Visitor, Filled(line): Filled<Line>) -> Result<Redirect, Trouble> {
    let product = line.product()?;
    let quantity = line.quantity.ok_or(Trouble::BadForm("How many?"))?;
    if quantity > QUANTITY_MAX {
        return Err(Trouble::BadForm("The shop does not have that many."));
    }
    session.open().await?.clicks().add(1)?;
    let mut guard = session.write_group(CART).await?;
    guard.set_quantity(product, quantity);
    guard.commit().await?;
    Ok(Redirect::to("/cart"))
}

/// The cart's lock is held while the card is charged, so that what is paid is what is ordered; visits and logins go on.
/// The order and the shop's sales are one commit: both or neither.
async fn checkout(
    State(site): State<Site>,
    headers: HeaderMap,
    Visitor(session): Visitor,
) -> Result<Response, Trouble> {
    let object = session.open().await?;
    if object.read().await?.get(|session| session.user().is_none()) {
        return Ok(Redirect::to("/login").into_response());
    }
    object.clicks().add(1)?;
    let mut cart = object.write_group(CART).await?;
    charge_card().await;
    let mut sales = site.sales.write().await?;
    let Some(order) = cart.order(&mut sales) else {
        return Err(Trouble::BadForm("There is nothing in the cart."));
    };
    site.kiln.commit((cart, sales)).await?;
    Ok(pages::ordered(&site.frame(&headers, &session), &order).into_response())
}

async fn charge_card() {
    tokio::time::sleep(CHARGE_TIME).await;
}

#[derive(Deserialize)]
struct Theme {
    theme: String,
}

async fn theme(Visitor(session): Visitor, Filled(form): Filled<Theme>) -> Result<Redirect, Trouble> {
    let theme = THEMES.into_iter().find(|theme| *theme == form.theme);
    let theme = theme.ok_or(Trouble::BadForm("There is no such theme."))?;
    session.open().await?.clicks().add(1)?;
    session.update(|session| session.theme.set(theme.to_owned())).await?;
    Ok(Redirect::to("/session"))
}

#[derive(Deserialize)]
struct Note {
    note: String,
}

/// A slow request may have its session in hand long before the form is in. No lock is held meanwhile.
async fn note(Visitor(session): Visitor, Filled(form): Filled<Note>) -> Result<Redirect, Trouble> {
    if form.note.chars().count() > NOTE_CHARS_MAX {
        return Err(Trouble::BadForm("A note has at most 500 letters."));
    }
    session.open().await?.clicks().add(1)?;
    session.update(|session| session.note.set(form.note)).await?;
    Ok(Redirect::to("/session"))
}

/// What this node holds in its memory: looking takes no lock and asks nobody.
async fn session_page(
    State(site): State<Site>,
    headers: HeaderMap,
    Visitor(session): Visitor,
) -> Result<Html<String>, Trouble> {
    let object = session.open().await?;
    object.clicks().add(1)?;
    let held = format!("object {}, version {}, {:?}", object.id(), object.version(), object.state());
    Ok(pages::session(&site.frame(&headers, &session), &held, &site.kiln.stats()))
}

/// The session under a read lock: nobody in the cluster is changing it meanwhile.
async fn session_json(Visitor(session): Visitor) -> Result<Json<Snapshot>, Trouble> {
    let guard = session.read().await?.ok_or(Trouble::LoggedOut)?;
    Ok(Json(guard.get(|session| session.snapshot())))
}

/// What was sold.
#[derive(Deserialize, Serialize)]
pub(crate) struct SalesFigures {
    pub(crate) orders: u64,
    pub(crate) pieces: u64,
}

async fn sales_json(State(site): State<Site>) -> Result<Json<SalesFigures>, Trouble> {
    let guard = site.sales.read().await?;
    Ok(Json(guard.get(|sales| SalesFigures {
        orders: sales.orders(),
        pieces: sales.sold().iter().map(|(_, pieces)| pieces).sum(),
    })))
}
