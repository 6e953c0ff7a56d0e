//! `SessionLocal`: the fields that stay in the process.

use crate::field::{Field, Kind};
use crate::record::Record;
use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned as _;

pub(crate) struct Parts {
    pub(crate) item: TokenStream,
    /// The type, `()` when nothing is local.
    pub(crate) ty: TokenStream,
    /// The body of `Clustered::into_local`.
    pub(crate) into: TokenStream,
}

impl Parts {
    pub(crate) fn new(record: &Record<'_>) -> Self {
        let nested: Vec<_> = record.shared.iter().filter(|field| matches!(field.kind, Kind::Nested)).collect();
        if record.local.is_empty() && nested.is_empty() {
            return Self { item: TokenStream::new(), ty: quote!(()), into: TokenStream::new() };
        }
        let local = record.beside("Local");
        let moves = record.local.iter().map(|field| {
            let ident = field.ident;
            quote!(#ident: self.#ident)
        });
        let nested_moves = nested.iter().map(|field| {
            let (ident, ty) = (field.ident, field.ty);
            quote_spanned!(ty.span()=> #ident: <#ty as ::kiln::Clustered>::into_local(self.#ident))
        });
        let into = quote!(#local { #(#moves,)* #(#nested_moves,)* });
        Self { item: item(record, &nested), ty: quote!(#local), into }
    }
}

fn item(record: &Record<'_>, nested: &[&Field<'_>]) -> TokenStream {
    let (visibility, local, ident) = (record.visibility, record.beside("Local"), record.ident);
    let documentation = format!(
        "The local fields of a [`{ident}`]: each process has its own for each live object, and they are never sent."
    );
    let name = local.to_string();
    let declare = |field: &Field<'_>, ty: TokenStream| {
        let (visibility, ident) = (field.visibility, field.ident);
        let documentation = field.documentation(&format!("The field `{}`, in this process alone.", field.name));
        quote!(#documentation #visibility #ident: #ty)
    };
    let fields = record.local.iter().map(|field| {
        let ty = field.ty;
        declare(field, quote!(#ty))
    });
    let nested_type = |field: &Field<'_>| {
        let ty = field.ty;
        quote_spanned!(ty.span()=> <#ty as ::kiln::Clustered>::Local)
    };
    let nested_fields = nested.iter().map(|field| declare(field, nested_type(field)));
    let defaults = record.local.iter().map(|field| {
        let (ident, value) = (field.ident, field.default_value());
        quote!(#ident: #value)
    });
    let nested_defaults = nested.iter().map(|field| {
        let (ident, ty) = (field.ident, nested_type(field));
        quote!(#ident: <#ty as ::core::default::Default>::default())
    });
    quote! {
        #[doc = #documentation]
        #[allow(dead_code, clippy::struct_field_names)]
        #visibility struct #local { #(#fields,)* #(#nested_fields,)* }

        #[automatically_derived]
        impl ::core::default::Default for #local {
            fn default() -> Self {
                Self { #(#defaults,)* #(#nested_defaults,)* }
            }
        }

        #[automatically_derived]
        impl ::core::fmt::Debug for #local {
            /// Names the type alone: what is local need not be printable.
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                f.debug_struct(#name).finish_non_exhaustive()
            }
        }
    }
}
