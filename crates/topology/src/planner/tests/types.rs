//! Declared record types.

use super::*;

#[test]
fn record_types_nest_but_never_contain_themselves() {
    let types = json!([
        {"name": "Order", "fields": {
            "customerId": "string", "amountInCents": "int", "submittedAt": "timestampMillis", "to": "Address?"
        }},
        {"name": "Address", "fields": {"city": "string"}}
    ]);
    let mut json = with("/types", types);
    json["pipelines"][0]["steps"][0]["selectKey"] = json!("has(value.to) ? value.to.city : ''");
    let plan = planned(json.clone());
    let Format::Json(read) = &plan.sub_topologies[0].sources[0].value else {
        panic!()
    };
    assert_eq!(field_names(read), ["amountInCents", "submittedAt", "to"]);

    json["types"][1]["fields"]["again"] = json!("Order?");
    assert_eq!(
        errors(json)[0],
        error("types[1].fields.again", "type `Order` contains itself", "")
    );
}

#[test]
fn fields_can_be_lists_and_maps() {
    let types = json!([
        {"name": "Order", "fields": {
            "customerId": "string", "submittedAt": "timestampMillis", "lines": "list(Line)",
            "labels": "map(string, list(string))?"
        }},
        {"name": "Line", "fields": {"amountInCents": "int"}}
    ]);
    let mut json = with("/types", types);
    let steps = &mut json["pipelines"][0]["steps"];
    steps[0]["selectKey"] = json!("value.?labels.tenant.orValue(['']).join('/')");
    steps[2]["aggregate"]["add"] =
        json!("value.lines.exists(line, line.amountInCents < 0) ? 0 : aggregate + 1");
    let plan = planned(json.clone());
    let Format::Json(read) = &plan.sub_topologies[0].sources[0].value else {
        panic!()
    };
    assert_eq!(field_names(read), ["labels", "lines", "submittedAt"]);
    assert!(
        plan.describe()
            .contains("labels: map(string, list(string))?, lines: list(Line)")
    );

    json["types"][1]["fields"] =
        json!({"amountInCents": "int", "a": "list(Lin)", "b": "map(int, string)", "c": "list(Line)"});
    let expected = [
        error("types[1].fields.a", "unknown type `Lin`", "did you mean `Line`?"),
        error(
            "types[1].fields.b",
            "a map's keys are strings, as JSON's are, not int",
            "",
        ),
        error("types[1].fields.c", "type `Line` contains itself", ""),
    ];
    assert_eq!(errors(json)[..3], expected);
}
