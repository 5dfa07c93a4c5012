//! The config file's JSON schema, for editors: `flowpin check --schema`, and `packaging/flowpin.schema.json`.

use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use super::read::Raw;

/// The schema. It is the declaration's own, with the file's names for lists of tables.
pub fn schema() -> Value {
    let schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Raw>();
    let mut schema = schema.to_value();
    schema["title"] = json!("Flowpin's config file");
    let service = &mut schema["$defs"]["ServiceDecl"];
    if let Some(properties) = service["properties"].as_object_mut() {
        for (list, table) in [("frontends", "frontend"), ("backends", "backend")] {
            let found = properties.remove(list);
            properties.extend(found.map(|found| (table.to_string(), found)));
        }
    }
    service["required"] = json!(["name", "ports"]);
    schema["$defs"]["BackendDecl"]["required"] = json!(["address"]);
    schema["$defs"]["HealthDecl"]["required"] = json!(["type"]);
    schema
}
