//! `derive(Clustered)`: puts the parts together and implements the trait.

use crate::attribute::ArchiveFailure;
use crate::field::{Field, Kind};
use crate::record::Record;
use crate::{counters, guard, local, view};
use proc_macro2::{Literal, TokenStream};
use quote::{quote, quote_spanned};
use syn::DeriveInput;
use syn::spanned::Spanned as _;

pub(crate) fn derive(input: &DeriveInput) -> syn::Result<TokenStream> {
    let record = Record::new(input)?;
    let declared = record.shared.iter().map(Field::declared);
    let guard = guard::Parts::new(&record);
    let view = view::Parts::new(&record);
    let local = local::Parts::new(&record);
    let counters = counters::Parts::new(&record);
    let (guard_item, view_item, local_item, counters_item) = (guard.item, view.item, local.item, counters.item);
    let (view_accessors, counters_blanket) = (view.accessors, counters.blanket);
    let clustered = implementation(&record, &local.ty, &local.into);
    Ok(quote! {
        #guard_item
        #view_item
        #local_item
        #counters_item
        const _: () = {
            const __KILN_DECLARED: &[::kiln::__private::Declared] = &[#(#declared),*];
            #clustered
            #view_accessors
            #counters_blanket
        };
    })
}

/// The constant expression for the first slot of the shared field with this index.
pub(crate) fn slot(index: usize) -> TokenStream {
    let index = Literal::usize_unsuffixed(index);
    quote!(const { ::kiln::__private::first_slot(__KILN_DECLARED, #index) })
}

fn implementation(record: &Record<'_>, local: &TokenStream, into_local: &TokenStream) -> TokenStream {
    let (ident, name) = (record.ident, &record.name);
    let (guard, view) = (record.beside("Mut"), record.beside("View"));
    let shared = || record.shared.iter().enumerate();
    let stores = shared().map(|(index, field)| store(index, field));
    let defaults = shared().map(|(index, field)| default_slot(index, field));
    let guards = shared().map(|(index, field)| {
        let (ident, slot) = (field.ident, slot(index));
        let new = field.in_field_type(quote!(guard));
        quote!(#ident: #new(object, base + #slot))
    });
    let collects = shared().map(|(_, field)| collect(field));
    let loads = shared().map(|(index, field)| {
        let (ident, slot) = (field.ident, slot(index));
        let load = field.in_field_type(quote!(load));
        quote!(#ident: #load(&view.pinned, view.base + #slot))
    });
    let local_defaults = record.local.iter().map(|field| {
        let (ident, value) = (field.ident, field.default_value());
        quote!(#ident: #value)
    });
    quote! {
        #[automatically_derived]
        #[allow(deprecated)]
        impl ::kiln::Clustered for #ident {
            type Mut<'a> = #guard<'a>;
            type View<'a> = #view<'a>;
            type Local = #local;

            const NAME: &'static str = #name;
            const FIELDS: &'static [::kiln::FieldInfo] = {
                const BYTES: usize = ::kiln::__private::names_bytes(__KILN_DECLARED);
                const NAMES: &[u8] = &::kiln::__private::names::<BYTES>(__KILN_DECLARED);
                const SLOTS: usize = ::kiln::__private::slots(__KILN_DECLARED);
                const FIELDS: &[::kiln::FieldInfo] = &::kiln::__private::fields::<SLOTS>(__KILN_DECLARED, NAMES);
                FIELDS
            };

            fn store_at(
                &self,
                base: u16,
                out: &mut ::kiln::Changes,
            ) -> ::core::result::Result<(), ::kiln::ValueError> {
                #(#stores)*
                ::core::result::Result::Ok(())
            }

            fn default_slot_at(
                slot: u16,
                base: u16,
                out: &mut ::kiln::Changes,
            ) -> ::core::result::Result<(), ::kiln::ValueError> {
                #(#defaults)*
                ::kiln::__private::no_such_slot(#name, slot)
            }

            fn guard_at(object: &::kiln::__private::Object, base: u16) -> Self::Mut<'_> {
                #guard { #(#guards),* }
            }

            fn collect(
                guard: &mut Self::Mut<'_>,
                out: &mut ::kiln::Changes,
            ) -> ::core::result::Result<(), ::kiln::ValueError> {
                #(#collects)*
                ::core::result::Result::Ok(())
            }

            fn view_at(pinned: ::kiln::__private::Held<'_>, base: u16) -> Self::View<'_> {
                #view { pinned, base }
            }

            fn load(view: &Self::View<'_>) -> Self {
                Self { #(#loads,)* #(#local_defaults,)* }
            }

            fn into_local(self) -> Self::Local {
                #into_local
            }
        }
    }
}

fn store(index: usize, field: &Field<'_>) -> TokenStream {
    let (ident, name, slot) = (field.ident, &field.name, slot(index));
    let store = field.in_field_type(quote!(store));
    quote!(#store(&self.#ident, base + #slot, out).map_err(|error| error.within(#name))?;)
}

fn collect(field: &Field<'_>) -> TokenStream {
    let (ident, name) = (field.ident, &field.name);
    let collect = field.in_field_type(quote!(collect));
    let closure = quote!(|out: &mut ::kiln::Changes| #collect(&mut guard.#ident, out));
    let keep_local = |policy: TokenStream| {
        let policy = quote!(::kiln::__private::KeepLocal::#policy);
        quote!(::kiln::__private::collect_or_keep_local(out, #name, #policy, #closure);)
    };
    match (&field.kind, field.archive_failure) {
        (Kind::Nested, _) => quote!(::kiln::__private::collect_nested(out, #name, #closure)?;),
        (Kind::Plain | Kind::Archive(_), Some(ArchiveFailure::LeaveOut)) => {
            quote!(::kiln::__private::collect_or_leave_out(out, #name, #closure);)
        }
        (Kind::Plain | Kind::Archive(_), Some(ArchiveFailure::KeepLocal)) => keep_local(quote!(ForNow)),
        (Kind::Plain | Kind::Archive(_), Some(ArchiveFailure::Stop)) => keep_local(quote!(ForGood)),
        (Kind::Plain | Kind::Archive(_) | Kind::Counter | Kind::Local, _) => {
            quote!(#collect(&mut guard.#ident, out).map_err(|error| error.within(#name))?;)
        }
    }
}

fn default_slot(index: usize, field: &Field<'_>) -> TokenStream {
    let (name, ty, first, next) = (&field.name, field.ty, slot(index), slot(index + 1));
    if matches!(field.kind, Kind::Nested) {
        return quote_spanned! {ty.span()=>
            if slot >= #first && slot < #next {
                return <#ty as ::kiln::Clustered>::default_slot_at(slot - #first, base + #first, out)
                    .map_err(|error| error.within(#name));
            }
        };
    }
    let store = field.in_field_type(quote!(store));
    let value = if matches!(field.kind, Kind::Counter) { quote!(0) } else { field.default_value() };
    quote! {
        if slot == #first {
            let value: #ty = #value;
            return #store(&value, base + slot, out).map_err(|error| error.within(#name));
        }
    }
}
