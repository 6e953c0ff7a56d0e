//! `#[clustered(..)]` and `#[value(..)]`: settings with a name, each at most once, all mistakes reported together.

use proc_macro2::Span;
use quote::ToTokens;
use std::fmt::Display;
use syn::ext::IdentExt as _;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Attribute, Expr, ExprLit, Ident, Lit, Token};

/// The longest name that the cluster takes, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// Mistakes, collected so that the user sees all of them at once.
#[derive(Default)]
pub(crate) struct Mistakes(Option<syn::Error>);

impl Mistakes {
    pub(crate) fn add(&mut self, error: syn::Error) {
        match &mut self.0 {
            Some(all) => all.combine(error),
            None => self.0 = Some(error),
        }
    }

    pub(crate) fn at(&mut self, span: Span, message: impl Display) {
        self.add(syn::Error::new(span, message));
    }

    pub(crate) fn on(&mut self, tokens: &impl ToTokens, message: impl Display) {
        self.add(syn::Error::new_spanned(tokens, message));
    }

    pub(crate) fn into_result(self) -> syn::Result<()> {
        self.0.map_or(Ok(()), Err)
    }
}

/// One setting inside an attribute: `name` or `name = value`.
pub(crate) struct Setting {
    pub(crate) name: Ident,
    pub(crate) value: Option<Expr>,
}

impl Parse for Setting {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let name = input.call(Ident::parse_any)?;
        if input.peek(syn::token::Paren) {
            return Err(syn::Error::new(name.span(), format!("write `{name} = value` instead of `{name}(value)`")));
        }
        let value = if input.parse::<Option<Token![=]>>()?.is_some() { Some(input.parse()?) } else { None };
        Ok(Self { name, value })
    }
}

/// All settings of the attributes with this path; a setting given twice is a mistake.
pub(crate) fn settings(attributes: &[Attribute], path: &str, mistakes: &mut Mistakes) -> Vec<Setting> {
    let mut settings: Vec<Setting> = Vec::new();
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident(path)) {
        match attribute.parse_args_with(Punctuated::<Setting, Token![,]>::parse_terminated) {
            Ok(given) => {
                for setting in given {
                    if settings.iter().any(|earlier| earlier.name == setting.name) {
                        mistakes.at(setting.name.span(), format!("`{}` is given twice: keep one", setting.name));
                    } else {
                        settings.push(setting);
                    }
                }
            }
            Err(error) => mistakes.add(error),
        }
    }
    settings
}

/// What becomes of a change that cannot be archived.
#[derive(Clone, Copy)]
pub(crate) enum ArchiveFailure {
    Fail,
    LeaveOut,
    KeepLocal,
    Stop,
}

impl Setting {
    /// The name given as a string.
    pub(crate) fn into_name(self, mistakes: &mut Mistakes) -> Option<String> {
        let setting = self.name.to_string();
        let Some(value) = self.value else {
            mistakes.at(self.name.span(), format!("`{setting}` needs a value: `{setting} = \"..\"`"));
            return None;
        };
        let Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) = &value else {
            mistakes.on(&value, format!("`{setting}` takes a string in quotes: `{setting} = \"..\"`"));
            return None;
        };
        let name = text.value();
        if name.is_empty() {
            mistakes.on(text, format!("`{setting}` must not be empty: give a name, or leave `{setting}` out"));
        } else if name.len() > NAME_BYTES_MAX {
            mistakes.on(text, format!("`{setting}` is longer than {NAME_BYTES_MAX} bytes: choose a shorter name"));
        }
        Some(name)
    }

    /// What becomes of a change that cannot be archived.
    pub(crate) fn into_archive_failure(self, mistakes: &mut Mistakes) -> Option<ArchiveFailure> {
        let span = self.value.as_ref().map_or_else(|| self.name.span(), syn::spanned::Spanned::span);
        match self.into_name(mistakes)?.as_str() {
            "fail" => Some(ArchiveFailure::Fail),
            "leave_out" => Some(ArchiveFailure::LeaveOut),
            "keep_local" => Some(ArchiveFailure::KeepLocal),
            "stop" => Some(ArchiveFailure::Stop),
            _ => {
                mistakes
                    .at(span, "`on_archive_failure` is `\"fail\"`, `\"leave_out\"`, `\"keep_local\"` or `\"stop\"`");
                None
            }
        }
    }

    /// The expression.
    pub(crate) fn into_expression(self, mistakes: &mut Mistakes) -> Option<Expr> {
        if self.value.is_none() {
            mistakes.at(
                self.name.span(),
                format!("`{0}` needs a value: `{0} = expression`; without one, leave `{0}` out", self.name),
            );
        }
        self.value
    }

    /// A setting without value.
    pub(crate) fn expect_bare(&self, mistakes: &mut Mistakes) {
        if let Some(value) = &self.value {
            mistakes.on(value, format!("`{0}` takes no value: write `{0}` alone", self.name));
        }
    }
}
