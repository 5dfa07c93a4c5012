//! The API's own description, made from its routes and types: OpenAPI 3.1.

use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{
    route::{Make, Route},
    types::ErrorView,
};

/// The document.
pub fn document<C>(routes: &[Route<C>]) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let refusal = generator.subschema_for::<ErrorView>();
    let mut paths = Map::new();
    for route in routes {
        let mut operation = json!({
            "summary": route.summary,
            "parameters": parameters(route, &mut generator),
            "responses": {
                route.status: {"description": "Done."},
                "default": {
                    "description": "Refused: one sentence says why, and what would be right.",
                    "content": {"application/json": {"schema": refusal}}
                }
            }
        });
        if let Some((make, media)) = route.answer {
            operation["responses"][route.status]["content"] =
                json!({media: {"schema": make(&mut generator)}});
        }
        if let Some(make) = route.body {
            let media =
                if route.method == "patch" { "application/merge-patch+json" } else { "application/json" };
            operation["requestBody"] = json!({"content": {media: {"schema": make(&mut generator)}}});
        }
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method] = operation;
    }
    json!({
        "openapi": "3.1.0",
        "info": {"title": "Flowpin", "version": env!("CARGO_PKG_VERSION"), "license": {"name": "MIT OR Apache-2.0"}},
        "servers": [{"url": "http://flowpin", "description": "HTTP on the agent's Unix socket"}],
        "paths": paths,
        "components": {"schemas": generator.take_definitions(true)}
    })
}

/// Names in the path, and keys of the query.
fn parameters<C>(route: &Route<C>, generator: &mut SchemaGenerator) -> Vec<Value> {
    let names = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let mut all: Vec<Value> = names
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
        .collect();
    all.extend(route.query.into_iter().flat_map(|make| keys(make, generator)));
    all
}

fn keys(make: Make, generator: &mut SchemaGenerator) -> Vec<Value> {
    let schema = make(generator);
    let name = schema.get("$ref").and_then(Value::as_str).and_then(|path| path.rsplit('/').next());
    let defined = name.and_then(|name| generator.definitions().get(name));
    let Some(object) = defined.and_then(Value::as_object) else { return Vec::new() };
    let required = |key: &str| {
        object.get("required").and_then(Value::as_array).is_some_and(|keys| keys.iter().any(|k| k == key))
    };
    let properties = object.get("properties").and_then(Value::as_object).into_iter().flatten();
    properties
        .map(|(key, schema)| json!({"name": key, "in": "query", "required": required(key), "schema": schema}))
        .collect()
}
