//! `SessionCounters`: the counters of a shared object, outside a guard.

use crate::clustered::slot;
use crate::field::Kind;
use crate::record::Record;
use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned as _;

pub(crate) struct Parts {
    pub(crate) item: TokenStream,
    /// The implementation for all that has counters; it names the constant table.
    pub(crate) blanket: TokenStream,
}

impl Parts {
    pub(crate) fn new(record: &Record<'_>) -> Self {
        let (visibility, counters, ident) = (record.visibility, record.beside("Counters"), record.ident);
        let mut declarations = Vec::new();
        let mut methods = Vec::new();
        for (index, field) in record.shared.iter().enumerate() {
            let (method, ty, slot) = (field.ident, field.ty, slot(index));
            let (result, body, otherwise) = match field.kind {
                Kind::Counter => (
                    quote!(<Self as ::kiln::CounterSource<#ident>>::Counter<'_>),
                    quote!(<Self as ::kiln::CounterSource<#ident>>::counter(self, #slot)),
                    format!("The counter `{}`: adding needs no lock and never loses an update.", field.name),
                ),
                Kind::Nested => (
                    quote_spanned!(ty.span()=> ::kiln::NestedCounters<'_, Self, #ident, #ty>),
                    quote_spanned!(ty.span()=> ::kiln::NestedCounters::new(self, #slot)),
                    format!("The counters of the nested struct `{}`.", field.name),
                ),
                Kind::Plain | Kind::Archive(_) | Kind::Local => continue,
            };
            let documentation = field.documentation(&otherwise);
            declarations.push(quote!(#documentation fn #method(&self) -> #result;));
            methods.push(quote!(#[inline] fn #method(&self) -> #result { #body }));
        }
        if methods.is_empty() {
            return Self { item: TokenStream::new(), blanket: TokenStream::new() };
        }
        let documentation = format!("The counters of a shared [`{ident}`]; bring it into scope to add without a lock.");
        let item = quote! {
            #[doc = #documentation]
            #[allow(dead_code)]
            #visibility trait #counters: ::kiln::CounterSource<#ident> + ::core::marker::Sized {
                #(#declarations)*
            }
        };
        // The parameter has a name that no type of the user has: it would hide that type.
        let blanket = quote! {
            #[automatically_derived]
            impl<__KilnSource: ::kiln::CounterSource<#ident>> #counters for __KilnSource { #(#methods)* }
        };
        Self { item, blanket }
    }
}
