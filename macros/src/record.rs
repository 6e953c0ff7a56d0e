//! The struct that derives `Clustered`.

use crate::attribute::{Mistakes, settings};
use crate::field::Field;
use quote::format_ident;
use std::collections::BTreeMap;
use syn::ext::IdentExt as _;
use syn::{Data, DeriveInput, Fields, Ident, Visibility};

/// A struct with named fields and without parameters, with its attributes understood.
pub(crate) struct Record<'i> {
    pub(crate) ident: &'i Ident,
    pub(crate) visibility: &'i Visibility,
    /// The name by which the cluster knows it.
    pub(crate) name: String,
    /// Its shared fields, in order.
    pub(crate) shared: Vec<Field<'i>>,
    /// Its other fields, in order.
    pub(crate) local: Vec<Field<'i>>,
}

const KNOWN: &str =
    "a struct knows `rename = \"..\"` and `on_archive_failure = \"..\"`; everything else goes on a field";

impl<'i> Record<'i> {
    pub(crate) fn new(input: &'i DeriveInput) -> syn::Result<Self> {
        let mut mistakes = Mistakes::default();
        if !input.generics.params.is_empty() {
            mistakes.on(
                &input.generics,
                "a clustered struct has no parameters, since the cluster knows it by one name: write a struct for each \
                 instance of it",
            );
        }
        let mut name = input.ident.unraw().to_string();
        let mut archive_failure = None;
        for setting in settings(&input.attrs, "clustered", &mut mistakes) {
            match setting.name.to_string().as_str() {
                "rename" => name = setting.into_name(&mut mistakes).unwrap_or_default(),
                "on_archive_failure" => archive_failure = setting.into_archive_failure(&mut mistakes),
                unknown => mistakes.at(setting.name.span(), format!("there is no `{unknown}` here: {KNOWN}")),
            }
        }
        let (local, mut shared): (Vec<_>, Vec<_>) =
            fields(input, &mut mistakes).into_iter().partition(|field: &Field<'_>| !field.is_shared());
        for field in &mut shared {
            field.archive_failure = field.archive_failure.or(archive_failure);
        }
        let this = Self { ident: &input.ident, visibility: &input.vis, name, shared, local };
        this.check_names(&mut mistakes);
        mistakes.into_result()?;
        Ok(this)
    }

    fn check_names(&self, mistakes: &mut Mistakes) {
        let mut names = BTreeMap::new();
        for field in &self.shared {
            if let Some(other) = names.insert(&field.name, field.ident) {
                mistakes.on(
                    field.ident,
                    format!(
                        "`{}` and `{other}` are both named \"{}\" in the cluster: give one another `rename`",
                        field.ident, field.name
                    ),
                );
            }
        }
    }

    /// The name of a type that is written beside the struct.
    pub(crate) fn beside(&self, suffix: &str) -> Ident {
        format_ident!("{}{}", self.ident.unraw(), suffix, span = self.ident.span())
    }
}

fn fields<'i>(input: &'i DeriveInput, mistakes: &mut Mistakes) -> Vec<Field<'i>> {
    let fields = match &input.data {
        Data::Struct(data) => &data.fields,
        Data::Enum(data) => {
            mistakes.at(
                data.enum_token.span,
                "an enum cannot be clustered, since its fields come and go: derive `kiln::Value` for it, and put it into \
                 a field of a clustered struct",
            );
            return Vec::new();
        }
        Data::Union(data) => {
            mistakes.at(data.union_token.span, "a union cannot be shared: use a struct with named fields");
            return Vec::new();
        }
    };
    let Fields::Named(named) = fields else {
        mistakes.on(
            &input.ident,
            "a clustered struct has named fields, since the cluster knows each by its name: name them, or derive \
             `kiln::Value` to share the struct as one value",
        );
        return Vec::new();
    };
    let fields: Vec<_> =
        named.named.iter().filter_map(|field| Some(Field::new(field.ident.as_ref()?, field, mistakes))).collect();
    for field in &fields {
        field.refuse_recursion(&input.ident, mistakes);
    }
    if !fields.iter().any(Field::is_shared) {
        mistakes.on(&input.ident, "a clustered struct needs a field that is shared, one without `local`");
    }
    fields
}
