//! The form of a definition for clients from before image layers: the `.r2` routes of Diego's interface.

use super::schema::{
    Action, ActionList, CachedDependency, DigestAlgorithm, DownloadAction, ImageLayer, LayerType,
    TaskDefinition,
};

/// Shared layers become cached dependencies before those that are there, exclusive ones downloads before the action;
/// `image_layers` is empty then (`bbs:models/task.go`, VersionDownTo).
#[must_use]
pub fn without_image_layers(definition: &TaskDefinition) -> TaskDefinition {
    let mut down = definition.clone();
    let layers = std::mem::take(&mut down.image_layers);
    let of = |wanted: LayerType| {
        layers
            .iter()
            .filter(move |layer| layer.layer_type == Some(wanted))
    };
    let shared = of(LayerType::Shared).map(dependency);
    down.cached_dependencies.splice(0..0, shared);
    let downloads: Vec<_> = of(LayerType::Exclusive)
        .map(|layer| Some(download(layer, &definition.legacy_download_user)))
        .collect();
    if !downloads.is_empty() {
        let parallel = Action {
            parallel: Some(list(downloads)),
            ..Action::default()
        };
        down.action = Some(Action {
            serial: Some(list(vec![Some(parallel), down.action.take()])),
            ..Action::default()
        });
    }
    down
}

fn list(actions: Vec<Option<Action>>) -> Box<ActionList> {
    Box::new(ActionList {
        actions,
        log_source: String::new(),
    })
}

fn algorithm(layer: &ImageLayer) -> &'static str {
    match layer.digest_algorithm {
        Some(DigestAlgorithm::Sha256) => "sha256",
        Some(DigestAlgorithm::Sha512) => "sha512",
        Some(DigestAlgorithm::Invalid) | None => "",
    }
}

/// The key of a layer in the cache: its digest, else where it comes from.
fn key(layer: &ImageLayer) -> String {
    match algorithm(layer) {
        "" => layer.url.clone(),
        algorithm => format!("{algorithm}:{}", layer.digest_value),
    }
}

fn dependency(layer: &ImageLayer) -> CachedDependency {
    CachedDependency {
        name: layer.name.clone(),
        from: layer.url.clone(),
        to: layer.destination_path.clone(),
        cache_key: key(layer),
        log_source: String::new(),
        checksum_algorithm: algorithm(layer).to_owned(),
        checksum_value: layer.digest_value.clone(),
    }
}

fn download(layer: &ImageLayer, user: &str) -> Action {
    Action {
        download: Some(Box::new(DownloadAction {
            artifact: layer.name.clone(),
            from: layer.url.clone(),
            to: layer.destination_path.clone(),
            cache_key: key(layer),
            log_source: String::new(),
            user: user.to_owned(),
            checksum_algorithm: algorithm(layer).to_owned(),
            checksum_value: layer.digest_value.clone(),
        })),
        ..Action::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diego::from_json;

    #[test]
    fn layers_become_what_older_clients_know() {
        let json = br#"{"task_guid":"g","domain":"d","rootfs":"a:b","legacy_download_user":"u","action":{"run":{"path":"x","user":"u"}},
            "cached_dependencies":[{"from":"f","to":"/t","cache_key":"k"}],
            "image_layers":[{"url":"s","destination_path":"/s","layer_type":"SHARED","media_type":"TGZ"},
                {"url":"e","destination_path":"/e","layer_type":"EXCLUSIVE","media_type":"TGZ","digest_algorithm":"SHA256","digest_value":"00"}]}"#;
        let definition = from_json(json).unwrap().desired.definition.unwrap();
        let down = without_image_layers(&definition);
        assert!(down.image_layers.is_empty());
        let keys: Vec<_> = down
            .cached_dependencies
            .iter()
            .map(|dependency| &dependency.cache_key)
            .collect();
        assert_eq!(keys, ["s", "k"]);
        let serial = down.action.unwrap().serial.unwrap().actions;
        let downloads = serial[0].as_ref().unwrap().parallel.as_ref().unwrap();
        let first = downloads.actions[0]
            .as_ref()
            .unwrap()
            .download
            .as_ref()
            .unwrap();
        assert_eq!(
            (first.cache_key.as_str(), first.user.as_str()),
            ("sha256:00", "u")
        );
        assert!(serial[1].as_ref().unwrap().run.is_some());
        // Nothing to do: nothing changes.
        let plain = without_image_layers(&TaskDefinition::default());
        assert_eq!(plain, TaskDefinition::default());
    }
}
