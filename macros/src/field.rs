//! One field of a clustered struct, with its attributes understood.

use crate::attribute::{ArchiveFailure, Mistakes, settings};
use crate::recursion::names;
use proc_macro2::{Span, TokenStream};
use quote::{ToTokens as _, quote, quote_spanned};
use syn::ext::IdentExt as _;
use syn::spanned::Spanned as _;
use syn::{Attribute, Expr, Ident, Type, Visibility};

/// How the field is shared.
pub(crate) enum Kind {
    Plain,
    Counter,
    Nested,
    Archive(String),
    Local,
}

/// A field of the struct.
pub(crate) struct Field<'i> {
    pub(crate) ident: &'i Ident,
    pub(crate) visibility: &'i Visibility,
    pub(crate) ty: &'i Type,
    /// The name by which the cluster knows it.
    pub(crate) name: String,
    pub(crate) group: String,
    pub(crate) kind: Kind,
    /// What becomes of a change that cannot be archived; `None` where the field does not say.
    pub(crate) archive_failure: Option<ArchiveFailure>,
    default: Option<Expr>,
    documentation: Vec<&'i Attribute>,
}

/// Settings that exclude one another, and why.
const EXCLUSIONS: &[(&str, &str, &str)] = &[
    ("local", "counter", "a counter is shared, a local field is not: keep one of the two"),
    ("local", "nested", "a nested struct is shared, a local field is not: keep one of the two"),
    ("local", "archive", "a local field is never archived: keep one of the two"),
    ("local", "lock", "no lock guards a local field: leave `lock` out"),
    ("local", "rename", "the cluster does not know a local field: leave `rename` out, rename the field itself"),
    ("counter", "nested", "a counter is one `i64`: put `counter` on a field of the nested struct"),
    ("counter", "archive", "a counter is one `i64`: keep one of the two"),
    (
        "counter",
        "lock",
        "adding to a counter needs no lock: leave `lock` out, or leave `counter` out to guard the field",
    ),
    ("counter", "on_archive_failure", "adding to a counter archives nothing: leave `on_archive_failure` out"),
    ("local", "on_archive_failure", "a local field is never archived: leave `on_archive_failure` out"),
    (
        "nested",
        "on_archive_failure",
        "each field of a nested struct has its own: put `on_archive_failure` on those, or on their struct",
    ),
    ("counter", "default", "a missing counter is 0: leave `default` out"),
    ("nested", "archive", "a nested struct is shared field by field, an archive as a whole: keep one of the two"),
    ("nested", "default", "each field of a nested struct has its own default: put `default` on those"),
];

/// The lock group of the fields that name none.
const DEFAULT_GROUP: &str = "default";

const KNOWN: &str = "a field knows `rename = \"..\"`, `lock = \"group\"`, `default = expression`, `counter`, `nested`, \
                     `archive = \"tag\"`, `local` and `on_archive_failure = \"..\"`";

impl<'i> Field<'i> {
    pub(crate) fn new(ident: &'i Ident, field: &'i syn::Field, mistakes: &mut Mistakes) -> Self {
        let mut this = Self {
            ident,
            visibility: &field.vis,
            ty: &field.ty,
            name: ident.unraw().to_string(),
            group: String::new(),
            kind: Kind::Plain,
            archive_failure: None,
            default: None,
            documentation: field.attrs.iter().filter(|attribute| attribute.path().is_ident("doc")).collect(),
        };
        let settings = settings(&field.attrs, "clustered", mistakes);
        for (one, other, why) in EXCLUSIONS {
            let find = |name| settings.iter().find(|setting| setting.name == name);
            if let (Some(_), Some(other)) = (find(one), find(other)) {
                mistakes.at(other.name.span(), why);
            }
        }
        for setting in settings {
            match setting.name.to_string().as_str() {
                "rename" => {
                    let span = setting.value.as_ref().map_or_else(|| setting.name.span(), syn::spanned::Spanned::span);
                    if let Some(name) = setting.into_name(mistakes) {
                        this.rename(name, span, mistakes);
                    }
                }
                "lock" => {
                    let span = setting.value.as_ref().map_or_else(|| setting.name.span(), syn::spanned::Spanned::span);
                    this.group = setting.into_name(mistakes).unwrap_or_default();
                    if this.group == DEFAULT_GROUP {
                        mistakes.at(span, "`default` is the group of the fields without `lock`: leave `lock` out");
                    }
                }
                "archive" => this.kind = Kind::Archive(setting.into_name(mistakes).unwrap_or_default()),
                "on_archive_failure" => this.archive_failure = setting.into_archive_failure(mistakes),
                "default" => this.default = setting.into_expression(mistakes),
                bare @ ("counter" | "nested" | "local") => {
                    setting.expect_bare(mistakes);
                    this.kind = match bare {
                        "counter" => Kind::Counter,
                        "nested" => Kind::Nested,
                        _ => Kind::Local,
                    };
                }
                unknown => mistakes.at(setting.name.span(), format!("there is no `{unknown}`: {KNOWN}")),
            }
        }
        this
    }

    fn rename(&mut self, name: String, span: Span, mistakes: &mut Mistakes) {
        if name.contains('.') {
            mistakes.at(span, "a field's name has no `.`: that joins a nested struct's name to those of its fields");
        }
        self.name = name;
    }

    /// A nested struct that holds itself has no end. What goes through a second struct is found by the compiler.
    pub(crate) fn refuse_recursion(&self, owner: &Ident, mistakes: &mut Mistakes) {
        if matches!(self.kind, Kind::Nested) && names(self.ty.to_token_stream(), owner) {
            mistakes.on(
                self.ty,
                format!(
                    "`{owner}` contains itself, so its fields have no end: give each part a key of its own in a root, and \
                     keep the key here"
                ),
            );
        }
    }

    pub(crate) const fn is_shared(&self) -> bool {
        !matches!(self.kind, Kind::Local)
    }

    /// The implementor of `kiln::FieldType` for this field.
    pub(crate) fn field_type(&self) -> TokenStream {
        let ty = self.ty;
        let span = ty.span();
        match self.kind {
            Kind::Plain | Kind::Local => quote_spanned!(span=> ::kiln::__private::PlainField<#ty>),
            Kind::Counter => quote_spanned!(span=> ::kiln::__private::CounterField<#ty>),
            Kind::Nested => quote_spanned!(span=> ::kiln::__private::NestedField<#ty>),
            Kind::Archive(_) => quote_spanned!(span=> ::kiln::__private::ArchiveField<#ty>),
        }
    }

    /// A path into `kiln::FieldType` of this field. All of it has the span of the field's type, which is where the
    /// compiler is to complain.
    pub(crate) fn in_field_type(&self, item: TokenStream) -> TokenStream {
        let field_type = self.field_type();
        let span = self.ty.span();
        let item = item.into_iter().map(|mut token| {
            token.set_span(span);
            token
        });
        quote_spanned!(span=> <#field_type as ::kiln::FieldType>::#(#item)*)
    }

    /// The field in the constant table.
    pub(crate) fn declared(&self) -> TokenStream {
        let (name, group) = (&self.name, &self.group);
        let field_type = self.field_type();
        let span = self.ty.span();
        match &self.kind {
            Kind::Archive(tag) => {
                let ty = self.ty;
                quote_spanned! {span=>
                    ::kiln::__private::Declared::with(#name, #group, &[::kiln::FieldInfo::opaque::<#ty>(#tag)])
                }
            }
            Kind::Plain | Kind::Counter | Kind::Nested | Kind::Local => {
                quote_spanned!(span=> ::kiln::__private::Declared::of::<#field_type>(#name, #group))
            }
        }
    }

    /// An expression for the value of the field when nobody wrote one.
    pub(crate) fn default_value(&self) -> TokenStream {
        let ty = self.ty;
        match &self.default {
            Some(expression) => quote!(#expression),
            None => quote_spanned!(ty.span()=> <#ty as ::core::default::Default>::default()),
        }
    }

    /// The user's documentation of the field, or else this.
    pub(crate) fn documentation(&self, otherwise: &str) -> TokenStream {
        if self.documentation.is_empty() {
            return quote!(#[doc = #otherwise]);
        }
        let documentation = &self.documentation;
        quote!(#(#documentation)*)
    }
}
