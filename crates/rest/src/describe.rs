//! The answer to a GET of the root: the tables and functions there are, as an OpenAPI 2.0 document.

use serde_json::{Map, Value, json};

use crate::schema::{Column, Schema};

/// Describes the schema. `base_path` is where the API is, such as `/rest/v1`.
#[must_use]
pub fn describe(schema: &Schema, base_path: &str) -> Value {
    let mut paths = Map::new();
    let mut definitions = Map::new();
    for relation in schema.relations.values() {
        let rows = json!({ "200": { "description": "OK",
            "schema": { "type": "array", "items": { "$ref": format!("#/definitions/{}", relation.name) } } } });
        let done =
            |status: &str, description: &str| json!({ (status): { "description": description } });
        paths.insert(
            format!("/{}", relation.name),
            json!({
                "get": { "tags": [relation.name], "responses": rows },
                "post": { "tags": [relation.name], "responses": done("201", "Created") },
                "patch": { "tags": [relation.name], "responses": done("204", "No Content") },
                "delete": { "tags": [relation.name], "responses": done("204", "No Content") },
            }),
        );
        let required: Vec<_> = relation
            .columns
            .iter()
            .filter(|column| !column.nullable && column.default.is_none())
            .map(|column| column.name.as_str())
            .collect();
        let properties: Map<String, Value> = relation
            .columns
            .iter()
            .map(|column| (column.name.clone(), property(column)))
            .collect();
        definitions.insert(
            relation.name.clone(),
            json!({ "type": "object", "required": required, "properties": properties }),
        );
    }
    for function in &schema.functions {
        let ok = json!({ "200": { "description": "OK" } });
        paths.insert(
            format!("/rpc/{}", function.name),
            json!({ "post": { "tags": [format!("(rpc) {}", function.name)], "responses": ok } }),
        );
    }
    json!({
        "swagger": "2.0",
        "info": { "title": "Tables and views", "version": env!("CARGO_PKG_VERSION") },
        "basePath": base_path,
        "consumes": ["application/json"],
        "produces": ["application/json", "application/vnd.pgrst.object+json", "text/csv"],
        "paths": paths,
        "definitions": definitions,
    })
}

fn property(column: &Column) -> Value {
    let sql_type = column.sql_type.as_str();
    let kind = match sql_type {
        "smallint" | "integer" | "bigint" => "integer",
        "real" | "double precision" | "numeric" => "number",
        "boolean" => "boolean",
        "json" | "jsonb" => return json!({ "format": sql_type }),
        array if array.ends_with("[]") => "array",
        _ => "string",
    };
    json!({ "type": kind, "format": sql_type })
}
