//! What every forge behind the port promises: one set of cases over every adapter, each against a fake of its forge.
//!
//! A case knows the port and the world that people see; what is peculiar to one forge stands in a file of its own. An adapter
//! joins by a fake, a [`ForgeWorld`], and one more line in `forge_contract!`.

#[path = "../../forges/mod.rs"]
pub mod fakes;

mod bitbucket;
mod clients;
mod comments;
mod described;
mod failures;
mod gitea;
mod github;
mod gitlab;
mod outside;
mod plain;
mod pulls;
mod shapes;
mod verdicts;

use std::sync::Arc;
use std::time::Duration;

use isoform::clock::Clock;
use isoform::domain::forge::{Permission, Verdict};
use isoform::port::Forge;

use fakes::{Fake, Reply};

/// A fresh repository on a fake of a forge.
pub trait ForgeWorld: Send + Sync {
    /// The forge.
    fn fake(&self) -> &Fake;
    /// The time here. It stands, and moves where somebody waits for it.
    fn clock(&self) -> &Clock;
    /// Opens the adapter as a process that has just begun, which waits so long for an answer.
    fn opened(&self, patience: Duration) -> Arc<dyn Forge>;
    /// The account that the credential writes as.
    fn me(&self) -> u64;
    /// Roles in the forge's own words, and what each comes to.
    fn roles(&self) -> Vec<(&'static str, Permission)>;
    /// Ways in which it says that there were too many calls, with how long to wait.
    fn limits(&self) -> Vec<(&'static str, Reply, Duration)>;
    /// What must never be in an error: everything secret so far.
    fn secrets(&self) -> Vec<String>;
    /// What it shows for "it works, and a person should look".
    fn neutral(&self) -> Verdict;
    /// Whether remarks on lines are shown.
    fn annotates(&self) -> bool;
    /// Whether it keeps deliveries for this credential.
    fn redelivers(&self) -> bool;
    /// What an address of pull requests, and one of their comments, holds.
    fn routes(&self) -> (&'static str, &'static str);

    /// Whether it tells a bot from a person.
    fn tells_bots(&self) -> bool {
        true
    }
    /// Whether pull requests have labels.
    fn labels(&self) -> bool {
        true
    }
    /// How it spells the id of an account.
    fn person_id(&self, account: u64) -> String {
        account.to_string()
    }
    /// How it keeps a comment that begins with a marker.
    fn written(&self, text: &str) -> String {
        text.to_owned()
    }
    /// What a comment says that it keeps.
    fn read(&self, raw: &str) -> String {
        raw.to_owned()
    }

    /// Opens the adapter as a process that has just begun.
    fn open(&self) -> Arc<dyn Forge> {
        self.opened(Duration::from_secs(20))
    }
}

/// The marker of most cases.
const MARKER: &str = "<!-- isoform:preview:platform -->";

/// A text that begins with the marker.
fn text(rest: &str) -> String {
    format!("{MARKER}\n{rest}")
}

macro_rules! forge_contract {
    ($($room:ident { $($case:ident)* })*) => {
        forge_contract!(@on github_app, crate::forges::github::app() => $($room { $($case)* })*);
        forge_contract!(@on github_token, crate::forges::github::token() => $($room { $($case)* })*);
        forge_contract!(@on github_server, crate::forges::github::server() => $($room { $($case)* })*);
        forge_contract!(@on gitlab_token, crate::forges::gitlab::world() => $($room { $($case)* })*);
        forge_contract!(@on gitea_token, crate::forges::gitea::world() => $($room { $($case)* })*);
        forge_contract!(@on bitbucket_token, crate::forges::bitbucket::token() => $($room { $($case)* })*);
        forge_contract!(@on bitbucket_account, crate::forges::bitbucket::account() => $($room { $($case)* })*);
    };
    (@on $module:ident, $world:expr => $($room:ident { $($case:ident)* })*) => {
        mod $module {
            $(mod $room {
                $(#[tokio::test]
                async fn $case() {
                    let world = $world.await;
                    crate::forges::$room::$case(&world as &dyn crate::forges::ForgeWorld).await;
                })*
            })*
        }
    };
}

forge_contract! {
    comments {
        a_comment_is_written_once_and_then_in_its_place
        a_comment_whose_id_was_lost_is_found_by_its_marker
        sec_a_comment_of_somebody_else_is_never_touched
        a_comment_under_another_pull_request_is_never_touched
        a_deleted_comment_is_made_anew
        two_markers_are_two_comments
        a_comment_must_begin_with_its_marker
        an_answer_that_was_lost_does_not_double_a_comment
        every_character_survives
        a_comment_of_the_greatest_size_is_taken_and_no_greater_one
        comments_after_a_known_one_are_told_oldest_first
        edits_bots_and_accounts_that_are_gone_are_told
        more_than_a_page_of_comments_is_told
        comments_of_what_is_not_there_are_not_found
    }
    pulls {
        open_pull_requests_into_a_branch_are_told_changed_last_first
        a_pull_request_tells_everything_that_is_asked_of_it
        a_pull_request_tells_how_it_ended
        a_fork_is_one_also_when_it_was_deleted
        more_than_a_page_of_pull_requests_is_told
        a_pull_request_that_is_not_there_is_not_found
        a_commit_came_in_by_the_pull_request_that_was_merged
        a_permission_is_that_of_the_role
        strangers_and_accounts_that_are_gone_may_do_nothing
        sec_an_account_that_took_over_a_name_may_do_nothing
        sec_a_name_is_data_and_leads_nowhere_else
    }
    verdicts {
        a_verdict_takes_the_place_of_the_one_before
        verdicts_of_other_names_and_commits_stay
        a_work_in_progress_can_be_shown_again
        a_long_title_is_cut
        many_remarks_are_shown_each_once
        failed_deliveries_are_sent_again_each_once
    }
    failures {
        a_limit_holds_every_call_and_then_they_go_on
        what_goes_wrong_is_told_and_the_next_call_works
        an_answer_that_never_comes_is_not_waited_for
        sec_a_redirect_is_not_followed
        sec_a_page_elsewhere_is_not_asked_for
        sec_what_is_refused_is_told_without_a_secret
    }
}
