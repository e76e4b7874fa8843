//! Diego's tasks on a real containerd. What the acceptance cases compare (`./dev cases`) is not repeated here: these are
//! the ends that a hostile or unlucky task comes to.

mod identity;
mod stage;

use portlayer_taskdef::diego::State;
use stage::Stage;

#[tokio::test(flavor = "multi_thread")]
async fn a_task_runs_as_its_user_in_ids_of_its_own() {
    let stage = Stage::open().await;
    let task = stage
        .run(
            r#""result_file":"/tmp/out","action":{"run":{"path":"sh","user":"vcap","dir":"/new/place",
                "args":["-c","{ id -u; pwd; stat -c %U:%a /new/place; echo $HOME $USER $PATH; cat /proc/self/uid_map; } > /tmp/out"]}}"#,
        )
        .await;
    assert_eq!((task.failed, task.failure_reason.as_str()), (false, ""));
    let lines: Vec<_> = task.result.lines().collect();
    assert_eq!(
        lines[..4],
        [
            "2000",
            "/new/place",
            "vcap:755",
            "/home/vcap vcap /usr/local/bin:/usr/bin:/bin"
        ]
    );
    let outside: u32 = lines[4].split_whitespace().nth(1).unwrap().parse().unwrap();
    assert_ne!(outside, 0, "root of the container is nobody on the host");
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn downloads_have_no_more_rights_than_their_user() {
    let stage = Stage::open().await;
    let download = |to: &str| {
        format!(
            r#"{{"download":{{"artifact":"bits","from":"memory:announce","to":"{to}","user":"vcap","cache_key":""}}}}"#
        )
    };
    let task = stage
        .run(&format!(r#""action":{}"#, download("/root")))
        .await;
    assert!(
        task.failure_reason
            .starts_with("Copying bits into the container failed: "),
        "{}",
        task.failure_reason
    );

    // A link of the task leads through the container's root, never through the host's.
    let inside = download("link/sub");
    let task = stage
        .run(&format!(
            r#""result_file":"/tmp/out","action":{{"serial":{{"actions":[
                {{"run":{{"path":"sh","user":"root","args":["-c","mkdir -m 777 /srv && ln -s ../../../../../srv /home/vcap/link"]}}}},
                {inside},
                {{"run":{{"path":"sh","user":"root","args":["-c","stat -c %U /srv/sub/announce > /tmp/out; sh /srv/sub/announce >> /tmp/out"]}}}}]}}}}"#
        ))
        .await;
    assert_eq!(
        (task.failure_reason.as_str(), task.result.as_str()),
        ("", "vcap\nannounced\n")
    );
    assert!(!std::path::Path::new("/srv/sub").exists());
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn results_are_never_read_through_links_or_fifos() {
    let stage = Stage::open().await;
    for (make, result) in [
        ("ln -s /etc/passwd /tmp/out", ""),
        ("mkdir /tmp/out", ""),
        ("mkfifo /tmp/out", ""),
        ("printf x > /tmp/out", "x"),
    ] {
        let task = stage
            .run(&format!(r#""result_file":"/tmp/out","action":{{"run":{{"path":"sh","user":"root","args":["-c","{make}"]}}}}"#))
            .await;
        assert_eq!(
            (task.failed, task.result.as_str()),
            (false, result),
            "{make}"
        );
    }
    let task = stage
        .run(r#""result_file":"/tmp/out","action":{"run":{"path":"sh","user":"root","args":["-c","head -c 60000 /dev/zero > /tmp/out"]}}"#)
        .await;
    assert_eq!(
        (task.failed, task.failure_reason.as_str()),
        (true, "failed to fetch result")
    );
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_task_leaves_behind_ends_with_it() {
    let stage = Stage::open().await;
    let task = stage
        .run(r#""action":{"run":{"path":"sh","user":"vcap","args":["-c","sleep 1000 & sleep 1000 & exit 0"]}}"#)
        .await;
    assert_eq!((task.state, task.failed), (State::Completed, false));
    // Closing checks that no executor, task element or process is left.
    stage.close().await;
}
