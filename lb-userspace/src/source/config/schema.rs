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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packaged_schema_is_the_one_that_is_made() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/flowpin.schema.json");
        let made = format!("{:#}\n", schema());
        let there = std::fs::read_to_string(path).unwrap_or_default();
        assert!(there == made, "{path} is old: flowpin check --schema > packaging/flowpin.schema.json");
    }
}
