//! The shapes of multipart forms, for the document of the interface. Handlers read forms part by part (`multipart.rs`).

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ObjectBuilder, RefOr,
        schema::{AdditionalProperties, KnownFormat, Object, Schema, SchemaFormat, Type},
    },
};

/// Any number of image files, under any names.
pub(super) struct ImageFiles;

/// One image file, under any name.
pub(super) struct OneFile;

/// The files of a pair, its group and its weight.
pub(super) struct PairForm;

impl PartialSchema for ImageFiles {
    fn schema() -> RefOr<Schema> {
        let mut files = files();
        files.min_properties = Some(1);
        files.into()
    }
}

impl PartialSchema for OneFile {
    fn schema() -> RefOr<Schema> {
        let mut files = files();
        (files.min_properties, files.max_properties) = (Some(1), Some(1));
        files.into()
    }
}

impl PartialSchema for PairForm {
    fn schema() -> RefOr<Schema> {
        let group = ObjectBuilder::new().schema_type(Type::String);
        let form = ObjectBuilder::new()
            .property("anchor", file())
            .property("positive", file())
            .property("group", group.max_length(Some(512)))
            .property("weight", ObjectBuilder::new().schema_type(Type::Number))
            .required("anchor");
        form.additional_properties(Some(AdditionalProperties::FreeForm(false)))
            .into()
    }
}

impl ToSchema for ImageFiles {}
impl ToSchema for OneFile {}
impl ToSchema for PairForm {}

fn file() -> Object {
    let text = ObjectBuilder::new().schema_type(Type::String);
    text.format(Some(SchemaFormat::KnownFormat(KnownFormat::Binary)))
        .build()
}

fn files() -> Object {
    let form = ObjectBuilder::new().property("file", file());
    form.additional_properties(Some(RefOr::T(Schema::Object(file()))))
        .build()
}
