//! `SessionMut`: what a write guard derefs to.

use crate::record::Record;
use proc_macro2::TokenStream;
use quote::quote;

pub(crate) struct Parts {
    pub(crate) item: TokenStream,
}

impl Parts {
    pub(crate) fn new(record: &Record<'_>) -> Self {
        let (visibility, guard, ident) = (record.visibility, record.beside("Mut"), record.ident);
        let documentation = format!(
            "Write access to a [`{ident}`], field by field: what is touched is read, what is changed is committed."
        );
        let name = guard.to_string();
        let fields = record.shared.iter().map(|field| {
            let (visibility, ident) = (field.visibility, field.ident);
            let documentation = field.documentation(&format!("The field `{}`.", field.name));
            let ty = field.in_field_type(quote!(Mut<'a>));
            quote!(#documentation #visibility #ident: #ty)
        });
        let item = quote! {
            #[doc = #documentation]
            #[allow(dead_code, clippy::struct_field_names)]
            #visibility struct #guard<'a> { #(#fields),* }

            #[automatically_derived]
            impl ::core::fmt::Debug for #guard<'_> {
                /// Names the type alone: what users keep in an object is not to slip into a log.
                fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                    f.debug_struct(#name).finish_non_exhaustive()
                }
            }
        };
        Self { item }
    }
}
