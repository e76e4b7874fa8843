//! Requests to one registry: who is asked, with what, and how often.

use std::fmt::Write;

use reqwest::header::{ACCEPT, AUTHORIZATION, LOCATION, RANGE, WWW_AUTHENTICATE};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use url::Url;

use crate::archive::Archive;
use crate::auth::{Challenge, challenge};
use crate::manifest::{self, Descriptor};
use crate::{Config, Credentials, PullError, Reference};

/// The largest manifest or index, as in the distribution specification.
const MAX_MANIFEST_BYTES: u64 = 4 << 20;
/// The largest answer of a token server.
const MAX_TOKEN_BYTES: u64 = 1 << 20;
const MAX_REDIRECTS: usize = 5;

/// What goes into `Authorization`, for as long as the pull.
enum Permission {
    None,
    Basic,
    Bearer(String),
}

/// One pull from one host.
pub(crate) struct Session<'a> {
    config: &'a Config,
    client: Client,
    host: String,
    base: Url,
    credentials: Option<&'a Credentials>,
    permission: Permission,
}

/// A transfer that ended before its end.
enum Broken {
    /// It may be tried again.
    Again(PullError),
    Fatal(PullError),
}

impl From<PullError> for Broken {
    fn from(error: PullError) -> Self {
        match error {
            PullError::Unreachable { .. } | PullError::Stalled { .. } => Broken::Again(error),
            PullError::Status { status, .. } if status >= 500 || status == 429 => {
                Broken::Again(error)
            }
            error => Broken::Fatal(error),
        }
    }
}

impl<'a> Session<'a> {
    pub(crate) fn new(
        config: &'a Config,
        host: &str,
        reference: &Reference,
        credentials: Option<&'a Credentials>,
    ) -> Result<Session<'a>, PullError> {
        let unreachable =
            |source: Box<dyn std::error::Error + Send + Sync>| PullError::Unreachable {
                host: host.to_owned(),
                what: reference.repository().to_owned(),
                source,
            };
        let scheme = if config.insecure.contains(host) {
            "http"
        } else {
            "https"
        };
        let base = format!("{scheme}://{host}/v2/{}/", reference.repository());
        let base = Url::parse(&base).map_err(|error| unreachable(error.into()))?;
        // Redirects are followed by us, because only we know who may get credentials; proxies of the environment are
        // somebody else's settings.
        let client = Client::builder()
            .redirect(Policy::none())
            .connect_timeout(config.stall)
            .read_timeout(config.stall)
            .no_proxy()
            .build()
            .map_err(|error| unreachable(error.into()))?;
        Ok(Session {
            config,
            client,
            host: host.to_owned(),
            base,
            credentials,
            permission: Permission::None,
        })
    }

    /// The bytes of all blobs; refused when there are too many.
    pub(crate) fn bounded(&self, blobs: &[Descriptor]) -> Result<u64, PullError> {
        let bytes = blobs
            .iter()
            .fold(0u64, |sum, blob| sum.saturating_add(blob.size));
        match bytes <= self.config.max_bytes {
            true => Ok(bytes),
            false => Err(PullError::TooLarge {
                bytes,
                limit: self.config.max_bytes,
            }),
        }
    }

    /// A manifest or index by tag or digest, verified where its digest is known.
    pub(crate) async fn manifest(
        &mut self,
        wanted: &str,
        digest: Option<&str>,
    ) -> Result<(Descriptor, Vec<u8>), PullError> {
        let mut tries = 0;
        loop {
            match self.manifest_once(wanted, digest).await {
                Ok(found) => return Ok(found),
                Err(Broken::Again(error)) if tries >= self.config.retries => return Err(error),
                Err(Broken::Again(_)) => tries += 1,
                Err(Broken::Fatal(error)) => return Err(error),
            }
        }
    }

    async fn manifest_once(
        &mut self,
        wanted: &str,
        digest: Option<&str>,
    ) -> Result<(Descriptor, Vec<u8>), Broken> {
        let url = self.below(&format!("manifests/{wanted}"))?;
        let response = self.ask(&url, wanted, None).await?;
        let media_type = response.headers().get("content-type");
        let media_type = media_type
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        let bytes = self.whole(response, wanted, MAX_MANIFEST_BYTES).await?;
        let actual = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
        if let Some(expected) = digest.filter(|expected| *expected != actual) {
            return Err(Broken::Fatal(PullError::Digest {
                what: expected.to_owned(),
                actual,
            }));
        }
        Ok((
            Descriptor::new(&media_type, actual, bytes.len() as u64),
            bytes,
        ))
    }

    /// A blob into the entry the archive has begun. A transfer that breaks off goes on where it ended, as long as
    /// every attempt brings something.
    pub(crate) async fn blob(
        &mut self,
        blob: &Descriptor,
        archive: &mut Archive,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), PullError> {
        let (mut at, mut sum, mut idle) = (0, Sha256::new(), 0);
        loop {
            let before = at;
            let ended = self
                .blob_from(blob, archive, &mut at, &mut sum, progress)
                .await;
            match ended {
                Ok(()) if at == blob.size => break,
                Err(Broken::Fatal(error)) => return Err(error),
                _ if at > before => idle = 0,
                Err(Broken::Again(error)) if idle >= self.config.retries => return Err(error),
                Ok(()) if idle >= self.config.retries => {
                    let what = blob.digest.clone();
                    return Err(PullError::Size {
                        what,
                        expected: blob.size,
                    });
                }
                _ => idle += 1,
            }
        }
        let actual = format!("sha256:{}", hex::encode(sum.finalize()));
        match actual == blob.digest {
            true => Ok(()),
            false => Err(PullError::Digest {
                what: blob.digest.clone(),
                actual,
            }),
        }
    }

    async fn blob_from(
        &mut self,
        blob: &Descriptor,
        archive: &mut Archive,
        at: &mut u64,
        sum: &mut Sha256,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), Broken> {
        if *at == blob.size && *at > 0 {
            return Ok(());
        }
        let url = self.below(&format!("blobs/{}", blob.digest))?;
        let mut response = self
            .ask(&url, &blob.digest, (*at > 0).then_some(*at))
            .await?;
        if *at > 0 && response.status() != StatusCode::PARTIAL_CONTENT {
            // It sends all of it again.
            archive.rewind().await.map_err(PullError::Io)?;
            (*at, *sum) = (0, Sha256::new());
        }
        while let Some(piece) = self.piece(&mut response, &blob.digest, *at).await? {
            let after = *at + piece.len() as u64;
            if after > blob.size {
                let what = blob.digest.clone();
                return Err(Broken::Fatal(PullError::Size {
                    what,
                    expected: blob.size,
                }));
            }
            archive.write(&piece).await.map_err(PullError::Io)?;
            sum.update(&piece);
            *at = after;
            progress(*at);
        }
        Ok(())
    }

    async fn piece(
        &self,
        response: &mut Response,
        what: &str,
        at: u64,
    ) -> Result<Option<Vec<u8>>, PullError> {
        match response.chunk().await {
            Ok(piece) => Ok(piece.map(|bytes| bytes.to_vec())),
            Err(error) if error.is_timeout() => Err(PullError::Stalled {
                host: self.host.clone(),
                what: what.to_owned(),
                at,
            }),
            Err(error) => Err(self.unreachable(what, error)),
        }
    }

    async fn whole(
        &self,
        mut response: Response,
        what: &str,
        limit: u64,
    ) -> Result<Vec<u8>, PullError> {
        let mut bytes = Vec::new();
        while let Some(piece) = self.piece(&mut response, what, bytes.len() as u64).await? {
            bytes.extend(piece);
            if bytes.len() as u64 > limit {
                let rule = "longer than 4 MiB";
                return Err(PullError::Document {
                    what: what.to_owned(),
                    rule,
                });
            }
        }
        Ok(bytes)
    }

    fn below(&self, path: &str) -> Result<Url, PullError> {
        self.base
            .join(path)
            .map_err(|error| PullError::Unreachable {
                host: self.host.clone(),
                what: path.to_owned(),
                source: error.into(),
            })
    }

    /// The texts of reqwest name the address, which may be one that is a secret.
    fn unreachable(&self, what: &str, error: reqwest::Error) -> PullError {
        PullError::Unreachable {
            host: self.host.clone(),
            what: what.to_owned(),
            source: Box::new(error.without_url()),
        }
    }

    /// An answer that means yes. Asks for permission when it must, once.
    async fn ask(
        &mut self,
        url: &Url,
        what: &str,
        from: Option<u64>,
    ) -> Result<Response, PullError> {
        let mut asked = false;
        loop {
            let response = self.follow(url, what, from).await?;
            let status = response.status();
            let (host, what) = (self.host.clone(), what.to_owned());
            match status {
                StatusCode::UNAUTHORIZED if !asked => {
                    asked = true;
                    let header = response.headers().get(WWW_AUTHENTICATE);
                    let text = header
                        .and_then(|value| value.to_str().ok())
                        .unwrap_or_default();
                    self.permission = self.permitted(challenge(text), &what).await?;
                }
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                    return Err(PullError::Unauthorized { host, what });
                }
                StatusCode::NOT_FOUND => return Err(PullError::NotFound { host, what }),
                status if status.is_success() => return Ok(response),
                status => {
                    return Err(PullError::Status {
                        host,
                        what,
                        status: status.as_u16(),
                    });
                }
            }
        }
    }

    /// The answer after redirects. Permission goes to the registry itself only.
    async fn follow(
        &self,
        url: &Url,
        what: &str,
        from: Option<u64>,
    ) -> Result<Response, PullError> {
        let mut url = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let mut request = self
                .client
                .get(url.clone())
                .header(ACCEPT, manifest::ACCEPT);
            if url.origin() == self.base.origin() {
                request = match (&self.permission, self.credentials) {
                    (Permission::Bearer(token), _) => {
                        request.header(AUTHORIZATION, format!("Bearer {token}"))
                    }
                    (Permission::Basic, Some(own)) => {
                        request.basic_auth(&own.user, Some(&own.password))
                    }
                    _ => request,
                };
            }
            if let Some(from) = from {
                request = request.header(RANGE, format!("bytes={from}-"));
            }
            let response = request
                .send()
                .await
                .map_err(|error| match error.is_timeout() {
                    true => PullError::Stalled {
                        host: self.host.clone(),
                        what: what.to_owned(),
                        at: from.unwrap_or(0),
                    },
                    false => self.unreachable(what, error),
                })?;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            let target = response
                .headers()
                .get(LOCATION)
                .and_then(|value| value.to_str().ok());
            let target = target.and_then(|target| url.join(target).ok());
            let target = target.ok_or_else(|| self.misled("a redirect to nowhere"))?;
            self.check(&target)?;
            url = target;
        }
        Err(self.misled("more than 5 redirects"))
    }

    fn misled(&self, rule: &'static str) -> PullError {
        PullError::Redirect {
            host: self.host.clone(),
            rule,
        }
    }

    /// Whether anything may be asked of this place: with TLS, or without where the owner of the node allowed it.
    fn check(&self, url: &Url) -> Result<(), PullError> {
        let mut place = url.host_str().unwrap_or_default().to_owned();
        if let Some(port) = url.port() {
            let _ = write!(place, ":{port}");
        }
        match url.scheme() {
            "https" => Ok(()),
            "http" if self.config.insecure.contains(&place) => Ok(()),
            "http" => Err(self.misled("without TLS")),
            _ => Err(self.misled("neither http nor https")),
        }
    }

    async fn permitted(
        &self,
        challenge: Option<Challenge>,
        what: &str,
    ) -> Result<Permission, PullError> {
        let refused = || PullError::Unauthorized {
            host: self.host.clone(),
            what: what.to_owned(),
        };
        match challenge {
            None => Err(refused()),
            Some(Challenge::Basic) => match self.credentials {
                Some(_) => Ok(Permission::Basic),
                None => Err(refused()),
            },
            Some(Challenge::Bearer {
                realm,
                service,
                scope,
            }) => {
                let mut url = Url::parse(&realm)
                    .map_err(|_| self.misled("a token server that is no address"))?;
                self.check(&url)?;
                let pairs = [("service", service), ("scope", scope)];
                let pairs = pairs
                    .into_iter()
                    .filter_map(|(name, value)| Some((name, value?)));
                url.query_pairs_mut().extend_pairs(pairs);
                let mut request = self.client.get(url);
                if let Some(own) = self.credentials {
                    request = request.basic_auth(&own.user, Some(&own.password));
                }
                let response = request
                    .send()
                    .await
                    .map_err(|error| self.unreachable("a token", error))?;
                if !response.status().is_success() {
                    return Err(refused());
                }
                let bytes = self.whole(response, "a token", MAX_TOKEN_BYTES).await?;
                let answer: Token = serde_json::from_slice(&bytes).map_err(|_| refused())?;
                answer
                    .token
                    .or(answer.access_token)
                    .map(Permission::Bearer)
                    .ok_or_else(refused)
            }
        }
    }
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}
