//! What becomes of records that fail.

use super::*;

#[test]
fn the_strictest_of_the_streams_that_meet_says_what_becomes_of_errors() {
    let plan = |policies: [&str; 2], then: Json| {
        let stream = |(name, policy): (&str, &str)| {
            let mut stream = json!({
                "name": name, "topic": name, "key": {"serde": "String"}, "value": {"serde": "Long"}, "onError": policy
            });
            if policy == "DeadLetter" {
                stream["deadLetterTopic"] = json!(format!("{name}-dead"));
            }
            stream
        };
        let mut steps = vec![json!({"merge": {"with": ["b"]}}), json!({"selectKey": "'all'"})];
        steps.extend(then.as_array().unwrap().iter().cloned());
        let streams: Vec<_> = ["a", "b"].into_iter().zip(policies).map(stream).collect();
        planned(json!({
            "language": "v1", "streams": streams,
            "pipelines": [{"name": "p", "from": "a", "steps": steps, "to": {"topic": "out", "value": {"serde": "Long"}}}]
        }))
    };
    let letters = |sub: &SubTopology| {
        let source = &sub.sources[0];
        let topic = source.dead_letters.map(|sink| sub.sinks[sink].topic.to_string());
        (source.on_error, topic)
    };
    let count = || json!([{"groupByKey": {}}, {"count": {"store": "count"}}, {"toStream": {}}]);
    for (policies, expected) in [
        (["Skip", "Skip"], (OnBadRecord::Skip, None)),
        (["Skip", "Fail"], (OnBadRecord::Fail, None)),
        (
            ["Skip", "DeadLetter"],
            (OnBadRecord::DeadLetter, Some("b-dead".to_owned())),
        ),
        (
            ["DeadLetter", "DeadLetter"],
            (OnBadRecord::DeadLetter, Some("a-dead".to_owned())),
        ),
        (["DeadLetter", "Fail"], (OnBadRecord::Fail, None)),
    ] {
        let plan = plan(policies, count());
        assert_eq!(letters(&plan.sub_topologies[1]), expected, "{policies:?}");
    }
    // Behind one repartition topic after the other; updates of a table cannot be left out.
    let twice = json!([
        {"groupByKey": {}}, {"count": {"store": "count"}}, {"toStream": {}},
        {"selectKey": "key + '!'"}, {"toTable": {"store": "counts"}},
        {"groupBy": {"key": "string(value)"}}, {"count": {"store": "by-count"}}, {"toStream": {}}
    ]);
    let plan = plan(["Skip", "Skip"], twice);
    let found: Vec<_> = plan.sub_topologies.iter().map(|sub| letters(sub).0).collect();
    assert_eq!(
        found,
        [
            OnBadRecord::Skip,
            OnBadRecord::Skip,
            OnBadRecord::Skip,
            OnBadRecord::Fail
        ]
    );
}
