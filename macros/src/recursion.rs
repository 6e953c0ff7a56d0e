//! Types that hold themselves, as far as their text shows it.

use proc_macro2::{TokenStream, TokenTree};
use syn::Ident;

/// Whether a type names `owner` or `Self`, other than at the end of a longer path.
pub(crate) fn names(tokens: TokenStream, owner: &Ident) -> bool {
    let mut after_colon = false;
    tokens.into_iter().any(|token| {
        let found = match &token {
            TokenTree::Ident(ident) => !after_colon && (ident == owner || ident == "Self"),
            TokenTree::Group(group) => names(group.stream(), owner),
            TokenTree::Punct(_) | TokenTree::Literal(_) => false,
        };
        after_colon = matches!(&token, TokenTree::Punct(punct) if punct.as_char() == ':');
        found
    })
}
