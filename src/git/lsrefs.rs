//! One branch over http(s) with protocol version 2: <https://git-scm.com/docs/protocol-v2>.

use std::time::Duration;

use super::{Error, Remote};
use crate::domain::model::Revision;

const LIMIT: usize = 256 << 10;
const DEADLINE: Duration = Duration::from_secs(30);

fn packet(text: &str) -> String {
    format!("{:04x}{text}", text.len() + 4)
}

pub(super) async fn tip(
    remote: &Remote,
    client: &reqwest::Client,
) -> Result<Option<Revision>, Error> {
    let base = remote.url.trim_end_matches('/');
    let token = remote.token()?;
    let authorised = |request: reqwest::RequestBuilder| match &token {
        Some(token) => request.basic_auth(
            remote.auth.user.as_deref().unwrap_or("x-access-token"),
            Some(token),
        ),
        None => request,
    };
    let url = format!("{base}/info/refs?service=git-upload-pack");
    let greeting = read(
        authorised(
            client
                .get(url)
                .header("Git-Protocol", "version=2")
                .timeout(DEADLINE.min(remote.patience.total)),
        )
        .send()
        .await?,
    )
    .await?;
    if !greeting.windows(9).any(|w| w == b"version 2") {
        return Err(Error::Protocol(
            "without protocol version 2; dumb http is refused".into(),
        ));
    }
    let wanted = remote.reference();
    let body = format!(
        "{}{}0001{}0000",
        packet("command=ls-refs\n"),
        packet("agent=isoform\n"),
        packet(&format!("ref-prefix {wanted}\n"))
    );
    let request = client
        .post(format!("{base}/git-upload-pack"))
        .header("Git-Protocol", "version=2")
        .header("Content-Type", "application/x-git-upload-pack-request")
        .header("Accept", "application/x-git-upload-pack-result")
        .timeout(DEADLINE.min(remote.patience.total))
        .body(body);
    parse(&read(authorised(request).send().await?).await?, &wanted)
}

async fn read(mut response: reqwest::Response) -> Result<Vec<u8>, Error> {
    if !response.status().is_success() {
        return Err(Error::Protocol(format!(
            "HTTP status {}",
            response.status()
        )));
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > LIMIT {
            return Err(Error::Protocol(format!(
                "more than {LIMIT} bytes to a question for one branch"
            )));
        }
    }
    Ok(bytes)
}

fn parse(bytes: &[u8], wanted: &str) -> Result<Option<Revision>, Error> {
    let bad = |what: &str| Error::Protocol(what.to_owned());
    let mut rest = bytes;
    while rest.len() >= 4 {
        let length = std::str::from_utf8(&rest[..4])
            .ok()
            .and_then(|t| usize::from_str_radix(t, 16).ok())
            .ok_or_else(|| bad("a broken packet length"))?;
        if length < 4 {
            rest = &rest[4..];
            continue;
        }
        let line = rest
            .get(4..length)
            .ok_or_else(|| bad("a packet that is cut"))?;
        let line = std::str::from_utf8(line)
            .map_err(|_| bad("a packet that is not text"))?
            .trim_end();
        if let Some(error) = line.strip_prefix("ERR ") {
            return Err(bad(&error.chars().take(200).collect::<String>()));
        }
        let mut words = line.split(' ');
        if let (Some(id), Some(name)) = (words.next(), words.next())
            && name == wanted
        {
            return id
                .parse()
                .map(Some)
                .map_err(|_| bad("a commit id that is none"));
        }
        rest = &rest[length..];
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_branch_counts() {
        let id = "0123456789012345678901234567890123456789";
        let answer = format!(
            "{}{}0000",
            packet(&format!("{id} refs/heads/main-2\n")),
            packet(&format!("{} refs/heads/main\n", id.replace('0', "a")))
        );
        assert_eq!(
            parse(answer.as_bytes(), "refs/heads/main")
                .unwrap()
                .unwrap()
                .as_str(),
            id.replace('0', "a")
        );
        assert_eq!(parse(b"0000", "refs/heads/main").unwrap(), None);
        for bad in ["zzzz", "00ff12", "0009ERR x"] {
            assert!(parse(bad.as_bytes(), "refs/heads/main").is_err(), "{bad}");
        }
    }
}
