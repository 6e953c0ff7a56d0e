//! `SessionView`: the pinned content of an object.

use crate::clustered::slot;
use crate::record::Record;
use proc_macro2::TokenStream;
use quote::quote;

pub(crate) struct Parts {
    pub(crate) item: TokenStream,
    /// The accessors; they name the constant table.
    pub(crate) accessors: TokenStream,
}

impl Parts {
    pub(crate) fn new(record: &Record<'_>) -> Self {
        let (visibility, view, ident) = (record.visibility, record.beside("View"), record.ident);
        let documentation = format!(
            "One version of a [`{ident}`], read in place. It pins memory, so keep it short, and never across an `.await`."
        );
        let name = view.to_string();
        let item = quote! {
            #[doc = #documentation]
            #visibility struct #view<'a> {
                pinned: ::kiln::__private::Held<'a>,
                base: u16,
            }

            #[automatically_derived]
            impl ::core::fmt::Debug for #view<'_> {
                /// Names the type alone: what users keep in an object is not to slip into a log.
                fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                    f.debug_struct(#name).finish_non_exhaustive()
                }
            }
        };
        let accessors = record.shared.iter().enumerate().map(|(index, field)| {
            let (visibility, ident, slot) = (field.visibility, field.ident, slot(index));
            let documentation = field.documentation(&format!("The field `{}`, in place.", field.name));
            let ty = field.in_field_type(quote!(View<'_>));
            let read = field.in_field_type(quote!(view));
            quote! {
                #documentation
                #[must_use]
                #[inline]
                #visibility fn #ident(&self) -> #ty {
                    #read(&self.pinned, self.base + #slot)
                }
            }
        });
        let accessors = quote! {
            #[automatically_derived]
            #[allow(dead_code)]
            impl #view<'_> { #(#accessors)* }
        };
        Self { item, accessors }
    }
}
