//! One suite over every implementation of a port.
//!
//! A case is a function over a [`Harness`]: a fresh world with an engine, a store and keys in it, somewhere to put a
//! template, and time that can pass. It knows nothing of the implementation, so an adapter joins by writing a harness and
//! one more line of `contract!`. Every case names what it rests on, or says that it is a guess;
//! `docs/reference-model.md` lists them, and the test at the end of this file compares.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says why it is skipped"
)]

mod harness;
mod lifecycle;
mod local;
mod specification;

use harness::Harness;

/// Names cases with their sources and runs each against an implementation.
macro_rules! contract {
    ($make:path; $($room:ident { $($case:ident: $source:literal;)* })*) => {
        /// Every case: room, name, source.
        const CASES: &[(&str, &str, &str)] = &[$($((stringify!($room), stringify!($case), $source),)*)*];

        $(mod $room {
            $(#[tokio::test]
            async fn $case() {
                let world = $make().await;
                crate::$room::$case(&world as &dyn crate::Harness).await;
            })*
        })*
    };
}

mod on_local {
    contract! { crate::local::fresh;
        lifecycle {
            a_stack_is_created_updated_and_deleted: "API model: StackStatus";
            by_name_a_deleted_stack_is_absent_and_by_id_it_is_described: "API DescribeStacks: deleted stacks are found by id for 90 days";
            a_protected_stack_is_not_deleted: "API UpdateTerminationProtection";
            deleting_twice_or_what_is_not_there_is_fine: "API DeleteStack: returns nothing where there is nothing";
            a_stack_that_updates_is_not_deleted: "aws/copilot-cli #1180; aws-toolkit-azure-devops #317";
            a_creation_in_motion_can_be_deleted: "user guide: DeleteStack is how a creation is given up";
            what_is_retained_stays_when_its_stack_goes: "user guide: DeletionPolicy attribute";
            a_resource_that_does_not_go_leaves_the_deletion_failed: "user guide: troubleshooting, delete stack fails; roadmap #1508";
            only_after_a_failed_deletion_can_resources_be_kept: "API DeleteStack: RetainResources; rebuy-de/aws-nuke #244, #270";
            an_export_in_use_lets_the_deletion_fall_back: "USSBA/aws-cft-tools #27; aws/aws-cdk #604; boto/botocore #2590";
            an_export_in_use_cannot_be_dropped_or_changed_by_an_update: "user guide: exporting stack output values; anomalyco/sst #1256";
            an_export_has_one_owner: "user guide: export names are unique within a region";
            a_failed_creation_deletes_the_stack: "API CreateChangeSet: OnStackFailure=DELETE";
            a_failed_creation_is_rolled_back: "API CreateChangeSet: OnStackFailure=ROLLBACK";
            a_rollback_that_fails_leaves_the_creation_stuck: "API model: StackStatus ROLLBACK_FAILED";
            a_failed_creation_can_be_kept_and_rolled_back_later: "API CreateChangeSet: OnStackFailure=DO_NOTHING; API RollbackStack";
            a_kept_creation_can_be_updated: "user guide: stack failure options";
            a_failed_update_is_rolled_back: "user guide: stack update failures";
            a_failed_update_can_be_kept_and_rolled_back_later: "API ExecuteChangeSet: DisableRollback; API RollbackStack";
            a_kept_update_can_be_tried_again: "user guide: stack failure options";
            a_rollback_that_fails_can_be_continued: "API ContinueUpdateRollback";
            continuing_can_skip_resources: "API ContinueUpdateRollback: ResourcesToSkip";
            only_a_failed_rollback_is_continued: "API ContinueUpdateRollback: UPDATE_ROLLBACK_FAILED";
            only_a_failed_stack_is_rolled_back: "API RollbackStack: CREATE_FAILED or UPDATE_FAILED";
            an_update_can_be_cancelled: "API CancelUpdateStack";
            only_an_update_is_cancelled: "API CancelUpdateStack: UPDATE_IN_PROGRESS";
            a_repeated_token_is_the_same_call: "API: ClientRequestToken, TokenAlreadyExistsException";
            a_failed_update_and_its_rollback_are_two_operations: "user guide: stack events by operation id; aws-cdk source";
            a_stack_policy_refuses_updates: "user guide: prevent updates to stack resources";
            what_cannot_be_cleaned_up_is_left_behind: "roadmap #744";
        }
    }

    #[test]
    fn every_case_is_in_the_specification() {
        crate::specification::covers(CASES);
    }
}
