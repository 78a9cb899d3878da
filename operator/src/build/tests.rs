use super::*;

const APP: &str = include_str!("../../../examples/orders-risk/app.yaml");

fn owner() -> Owner {
    Owner {
        namespace: "shop".to_owned(),
        name: "orders-risk".to_owned(),
        uid: "0000-1111".to_owned(),
    }
}

/// Children of the example after `edit`.
fn built(edit: impl FnOnce(&mut crds::StreamApp), image: &str, replicas: u32) -> Children {
    let mut app = crds::load(APP).unwrap().app;
    edit(&mut app);
    let kafka = app.kafka_config(|_| Ok::<_, ()>("secret".to_owned())).unwrap();
    children(&Input {
        owner: &owner(),
        spec: &app.spec,
        image,
        replicas,
        config: &app.worker_config(kafka, place()),
        keep_repartition_records: false,
    })
    .unwrap()
}

#[test]
fn the_children_of_the_example() {
    let mut children = built(|_| {}, "streamapp-worker:0.1.0", 3);
    // The configuration is asserted by what it means, below.
    children.config.data = None;
    insta::assert_yaml_snapshot!((
        &children.config,
        &children.service_account,
        &children.service,
        &children.disruption_budget,
        &children.network_policy,
        &children.stateful_set,
    ));
}

#[test]
fn the_configuration_is_what_a_worker_reads() {
    let children = built(|_| {}, "i", 1);
    let data = children.config.data.unwrap();
    let config: WorkerConfig = serde_json::from_slice(&data[CONFIG_FILE].0).unwrap();
    assert_eq!(config.application_id.0, "orders-risk-scoring-v1");
    assert_eq!(config.http_listen, "0.0.0.0:8080");
}

#[test]
fn the_revision_follows_what_pods_are_made_of_and_nothing_else() {
    let first = built(|_| {}, "i", 1).revision;
    let same = |edit: fn(&mut crds::StreamApp), image: &str, replicas| {
        built(edit, image, replicas).revision == first
    };
    assert!(same(|_| {}, "i", 3), "replicas are no reason");
    assert!(
        same(|app| app.spec.state.volume.size = "2Gi".to_owned(), "i", 1),
        "nor is the volume's size"
    );
    assert!(!same(|_| {}, "j", 1), "the image is");
    assert!(!same(|app| app.spec.threads = 3, "i", 1), "the configuration is");
    assert!(
        !same(
            |app| app.spec.resources = Some(crds::Resources::default()),
            "i",
            1
        ),
        "resources are"
    );
}

#[test]
fn a_password_changes_the_configuration_and_its_name() {
    let name = |password: &str| {
        let mut app = crds::load(APP).unwrap().app;
        app.spec.kafka.authentication = Some(crds::Authentication {
            mechanism: crds::Mechanism::ScramSha512,
            username: "u".to_owned(),
            password_secret: crds::PasswordSource {
                secret_name: "s".to_owned(),
                password: "p".to_owned(),
            },
        });
        let kafka = app.kafka_config(|_| Ok::<_, ()>(password.to_owned())).unwrap();
        assert_eq!(kafka.client_config["security.protocol"], "sasl_plaintext");
        assert_eq!(kafka.client_config["sasl.password"], password);
        let built = children(&Input {
            owner: &owner(),
            spec: &app.spec,
            image: "i",
            replicas: 1,
            config: &app.worker_config(kafka, place()),
            keep_repartition_records: false,
        })
        .unwrap();
        built.config.metadata.name
    };
    assert_ne!(name("one"), name("two"));
}
