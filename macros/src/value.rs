//! `derive(Value)`: what a struct or an enum is made of, as a constant.

use crate::attribute::{Mistakes, settings};
use crate::recursion::names;
use proc_macro2::{TokenStream, TokenTree};
use quote::{ToTokens as _, quote, quote_spanned};
use syn::ext::IdentExt as _;
use syn::spanned::Spanned as _;
use syn::{Attribute, Data, DeriveInput, Field, Fields, Ident};

pub(crate) fn derive(input: &DeriveInput) -> syn::Result<TokenStream> {
    let mut mistakes = Mistakes::default();
    if !input.generics.params.is_empty() {
        mistakes.on(
            &input.generics,
            "a value type has no parameters, since its structure has one name: write a type for each instance of it",
        );
    }
    refuse_layouts(&input.attrs, &mut mistakes);
    let name = known_name(&input.ident, &input.attrs, &mut mistakes);
    let structure = match &input.data {
        Data::Struct(data) => {
            let fields = fields(&data.fields, &input.ident, &mut mistakes);
            quote!(::kiln::__private::Structure::Struct { name: #name, fields: &[#(#fields),*] })
        }
        Data::Enum(data) => {
            if data.variants.is_empty() {
                mistakes.on(&input.ident, "an enum without variants has no value to share: add a variant");
            }
            let mut seen = Vec::new();
            let variants = data.variants.iter().map(|variant| {
                if let Some((_, discriminant)) = &variant.discriminant {
                    mistakes.on(
                        discriminant,
                        "a shared enum numbers its variants by their order: leave the number out, convert with a method",
                    );
                }
                let name = known_name(&variant.ident, &variant.attrs, &mut mistakes);
                if seen.contains(&name) {
                    mistakes.on(
                        variant,
                        format!("two variants are named \"{name}\" in the cluster: give one another `rename`"),
                    );
                }
                seen.push(name.clone());
                let fields = fields(&variant.fields, &input.ident, &mut mistakes);
                quote!(::kiln::__private::Variant { name: #name, fields: &[#(#fields),*] })
            });
            let variants: Vec<_> = variants.collect();
            quote!(::kiln::__private::Structure::Enum { name: #name, variants: &[#(#variants),*] })
        }
        Data::Union(data) => {
            mistakes.at(data.union_token.span, "a union cannot be shared: use an enum");
            TokenStream::new()
        }
    };
    mistakes.into_result()?;
    let ident = &input.ident;
    Ok(quote! {
        #[automatically_derived]
        impl ::kiln::Value for #ident {
            type Form = ::kiln::ArchiveForm;
            type ListForm = ::kiln::ArchiveForm;
            const STRUCTURE: ::kiln::__private::Structure<'static> = #structure;
        }
    })
}

/// The fields as constants of type `Field`.
fn fields(fields: &Fields, owner: &Ident, mistakes: &mut Mistakes) -> Vec<TokenStream> {
    let mut seen = Vec::new();
    let mut constants = Vec::new();
    for (index, field) in fields.iter().enumerate() {
        refuse_layouts(&field.attrs, mistakes);
        refuse_recursion(field, owner, mistakes);
        let name = match &field.ident {
            Some(ident) => known_name(ident, &field.attrs, mistakes),
            None => index.to_string(),
        };
        if seen.contains(&name) {
            mistakes.on(field, format!("two fields are named \"{name}\" in the cluster: give one another `rename`"));
        }
        let ty = &field.ty;
        constants.push(quote_spanned! {ty.span()=>
            ::kiln::__private::Field { name: #name, structure: <#ty as ::kiln::Value>::STRUCTURE }
        });
        seen.push(name);
    }
    constants
}

/// The name by which the cluster knows a type, field or variant.
fn known_name(ident: &Ident, attributes: &[Attribute], mistakes: &mut Mistakes) -> String {
    let mut name = ident.unraw().to_string();
    for setting in settings(attributes, "value", mistakes) {
        if setting.name == "rename" {
            name = setting.into_name(mistakes).unwrap_or_default();
        } else {
            mistakes.at(
                setting.name.span(),
                format!(
                    "there is no `{}` here: a value type, its fields and variants know `rename = \"..\"`",
                    setting.name
                ),
            );
        }
    }
    name
}

/// Settings of rkyv that change the layout behind the structure's back.
fn refuse_layouts(attributes: &[Attribute], mistakes: &mut Mistakes) {
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("rkyv")) {
        let Ok(list) = attribute.meta.require_list() else {
            continue;
        };
        for token in list.tokens.clone() {
            let TokenTree::Ident(ident) = token else { continue };
            if ["with", "niche", "as", "remote"].iter().any(|name| ident == name) {
                mistakes.at(
                    ident.span(),
                    format!(
                        "rkyv's `{ident}` gives the archive another layout than the type's structure says: use a type \
                         that needs none, or leave out `kiln::Value` and put `#[clustered(archive = \"tag\")]` on the \
                         field that holds this type"
                    ),
                );
            }
        }
    }
}

/// A type inside itself has no finite structure. What goes through a second type is found by the compiler.
fn refuse_recursion(field: &Field, owner: &Ident, mistakes: &mut Mistakes) {
    if names(field.ty.to_token_stream(), owner) {
        mistakes.on(
            &field.ty,
            format!(
                "`{owner}` contains itself, so its structure has no end: keep the parts in a `kiln::Map` or a `Vec` beside \
                 each other, and refer to them by key or index"
            ),
        );
    }
}
