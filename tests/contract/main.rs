//! One suite over every implementation of a port.
//!
//! A case is a function over a [`Harness`]: a fresh world with an engine, a store and keys in it, somewhere to put a
//! template, and time that can pass. It knows nothing of the implementation, so an adapter joins by writing a harness and
//! one more line of `contract!`. Every case names what it rests on, or says that it is a guess;
//! `docs/reference-model.md` lists them, and the test at the end of this file compares.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and says why it is skipped"
)]

mod budget;
mod changes;
mod changesets;
mod doctor;
mod drift;
mod emulated;
mod failures;
mod forges;
mod harness;
mod hints;
mod import;
mod keys;
mod lifecycle;
mod local;
mod misbehaviour;
mod nested;
mod objects;
mod permissions;
mod probe;
mod reach;
mod references;
mod replayed;
mod roles;
mod specification;
mod transitions;
mod unclear;

use harness::Harness;

/// Names cases with their sources and runs each against every implementation.
macro_rules! contract {
    ($($room:ident { $($case:ident: $source:literal;)* })*) => {
        /// Every case: room, name, source.
        const CASES: &[(&str, &str, &str)] = &[$($((stringify!($room), stringify!($case), $source),)*)*];

        mod on_local {
            $(mod $room {
                $(#[tokio::test]
                async fn $case() {
                    let world = crate::local::fresh().await;
                    crate::$room::$case(&world as &dyn crate::Harness).await;
                })*
            })*
        }

        contract!(@emulated on_moto "moto" $($room { $($case)* })*);
        contract!(@emulated on_ministack "ministack" $($room { $($case)* })*);
        contract!(@emulated on_localemu "localemu" $($room { $($case)* })*);
    };
    (@emulated $module:ident $emulator:literal $($room:ident { $($case:ident)* })*) => {
        mod $module {
            $(mod $room {
                $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let (room, case) = (stringify!($room), stringify!($case));
                    crate::emulated::judge($emulator, room, case, |world| {
                        Box::pin(async move { crate::$room::$case(world.as_ref() as &dyn crate::Harness).await })
                    })
                    .await;
                })*
            })*
        }
    };
}

contract! {
    lifecycle {
        a_stack_is_created_updated_and_deleted: "API model: StackStatus";
        by_name_a_deleted_stack_is_absent_and_by_id_it_is_described: "API DescribeStacks: deleted stacks are found by id for 90 days";
        a_protected_stack_is_not_deleted: "API UpdateTerminationProtection";
        deleting_twice_or_what_is_not_there_is_fine: "API DeleteStack: returns nothing where there is nothing";
        a_stack_that_updates_is_not_deleted: "aws/copilot-cli #1180; aws-amplify/amplify-backend #2366";
        a_creation_in_motion_can_be_deleted: "user guide: DeleteStack is how a creation is given up";
        what_is_retained_stays_when_its_stack_goes: "user guide: DeletionPolicy attribute";
        a_resource_that_does_not_go_leaves_the_deletion_failed: "user guide: troubleshooting, delete stack fails; roadmap #1508";
        only_after_a_failed_deletion_can_resources_be_kept: "API DeleteStack: RetainResources; rebuy-de/aws-nuke #244, #270";
        an_export_in_use_lets_the_deletion_fall_back: "USSBA/aws-cft-tools #27; aws/aws-cdk #604; boto/botocore #2590";
        an_export_in_use_cannot_be_dropped_or_changed_by_an_update: "user guide: exporting stack output values; anomalyco/sst #1256";
        an_export_has_one_owner: "user guide: export names are unique within a region";
    }
    failures {
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
        an_alarm_takes_an_update_back: "API model: RollbackConfiguration";
    }
    changesets {
        a_create_change_set_makes_a_shell: "API CreateChangeSet: ChangeSetType; cdk-cli #1767; cdk #29265";
        a_shell_is_used_by_the_next_create_change_set: "API CreateChangeSet: ChangeSetType CREATE";
        the_type_must_fit_the_stack: "API CreateChangeSet: ChangeSetType; cdk #6674";
        making_one_takes_time: "API model: ChangeSetStatus";
        the_same_token_is_the_same_change_set: "API CreateChangeSet: ClientToken";
        a_name_is_taken_also_while_its_change_set_is_deleted: "cdk-cli #1404";
        deleting_one_that_is_not_there_is_fine: "ministackorg/ministack #1625, measured against the service";
        nothing_to_change_is_a_failure_of_its_own: "cdk-cli source; aws-cli #3123";
        a_transform_says_it_in_other_words: "cdk-cli source; aws-cli #4043";
        executing_one_deletes_the_others: "API ExecuteChangeSet";
        another_operation_makes_one_obsolete: "API model: ExecutionStatus OBSOLETE";
        making_or_deleting_one_does_not_move_the_stack: "guess";
        what_was_executed_last_is_known_by_name: "API model: Stack.ChangeSetId";
        a_stack_that_moves_takes_no_change_set: "Clickstream guidance #573";
        a_thousand_are_the_most: "SAM translator #3807; aws-cli #4534; seed-farmer #441";
        change_sets_of_a_stack_are_listed: "API ListChangeSets";
        change_sets_of_a_stack_that_is_not_there_are_not_found: "guess";
        listings_come_in_pages: "API ListStacks: NextToken; aws-nuke #240";
        what_moves_is_listed_while_it_moves: "API ListStacks: StackStatusFilter";
        events_after_a_known_one_are_told: "API DescribeStackEvents: reverse order, all events";
    }
    changes {
        a_policy_alone_is_a_change: "roadmap #1543; ministackorg/ministack #1646, measured against the service";
        metadata_of_a_resource_is_a_change: "API model: ResourceChange.Scope; ministackorg/ministack #1646";
        parameters_stand_from_the_beginning_and_outputs_at_the_end: "guess";
        comments_metadata_and_conditions_alone_change_nothing: "roadmap #2027, #552; cdk #28205";
        outputs_alone_make_an_executable_set_without_changes: "cdk-cli source";
        property_values_are_shown_before_and_after: "API DescribeChangeSet: IncludePropertyValues";
        a_replacement_is_told_with_its_policy: "API model: ResourceChange.PolicyAction; user guide: UpdateReplacePolicy";
        a_removed_resource_goes_as_its_policy_says: "user guide: DeletionPolicy attribute";
        a_type_cannot_change_under_its_logical_id: "guess";
        capabilities_must_be_acknowledged: "API CreateChangeSet: Capabilities";
        a_parameter_that_is_kept_has_the_value_that_the_stack_has: "API Parameter: UsePreviousValue";
        a_secret_parameter_reads_as_stars: "user guide: NoEcho; mapbox/cfn-config #177";
        a_parameter_that_is_not_named_falls_back_to_its_default: "API model: Parameter.UsePreviousValue";
        what_is_outside_ascii_reads_back_as_question_marks: "roadmap #814, #1220; cdk #33285";
        an_import_that_nobody_exports_fails_the_change_set: "user guide: Fn::ImportValue";
        a_broken_template_is_refused_at_once: "API: ValidationError";
        tags_and_topics_are_the_stacks: "API CreateChangeSet: Tags, NotificationARNs";
        a_name_that_is_taken_fails_the_change_set: "user guide: early validation; cdk-cli #1767";
        a_named_resource_cannot_be_replaced_under_its_name: "user guide: Name type";
    }
    drift {
        a_stack_that_nobody_touched_has_not_drifted: "API DetectStackDrift";
        a_property_changed_by_hand_is_found: "user guide: detecting drift";
        a_property_that_the_template_does_not_set_is_not_compared: "user guide: detecting drift, considerations";
        a_resource_deleted_by_hand_is_found_and_cannot_be_updated: "API model: StackResourceDriftStatus DELETED";
        an_update_overwrites_only_what_it_changes: "guess";
        what_cannot_be_read_is_said_not_to_be_checked: "roadmap #2546; API model: NOT_CHECKED";
        a_stack_that_moves_is_not_looked_at: "user guide: detecting drift, stack states";
        a_skipped_resource_has_drifted: "API ContinueUpdateRollback: ResourcesToSkip";
    }
    import {
        a_resource_is_taken_in: "user guide: resource import";
        a_new_stack_can_begin_with_what_exists: "user guide: create a stack from existing resources";
        an_import_is_the_only_change: "cdk #38708; aws-security-assessment-solution #6; quickstart-awx #38";
        a_failed_import_lets_go_again: "API model: StackStatus IMPORT_ROLLBACK_COMPLETE";
        what_does_not_exist_cannot_be_taken_in: "guess";
        letting_go_can_fail_too: "API model: StackStatus IMPORT_ROLLBACK_FAILED";
    }
    objects {
        a_second_put_keeps_the_first_object: "S3 user guide: conditional writes, If-None-Match";
        of_two_puts_at_once_one_wins: "S3 user guide: conditional writes, concurrent requests";
        a_put_over_a_tag_needs_that_tag: "S3 user guide: conditional writes, If-Match";
        versions_are_kept: "S3 user guide: versioning";
        a_wrong_checksum_is_refused: "S3 user guide: checking object integrity";
        what_is_put_is_described: "S3 API HeadObject";
        a_key_of_ours_is_asserted: "S3 API PutObject: x-amz-server-side-encryption-aws-kms-key-id";
        what_is_not_there_is_said_so: "S3 API GetObject, DeleteObject";
        keys_are_listed_in_order_and_in_pages: "S3 API ListObjectsV2: UTF-8 order, 1,000 keys a page";
        a_retained_object_is_not_deleted: "S3 user guide: object lock";
        a_body_is_read_up_to_a_limit: "this project: src/port.rs, read_all";
        bytes_come_back_as_they_went: "S3 API PutObject, GetObject";
        cloudformation_reads_a_template_by_its_url: "API GetTemplateSummary: TemplateURL";
    }
    keys {
        a_wrapped_key_opens_under_its_context_only: "KMS developer guide: encryption context";
        every_data_key_is_new: "KMS API GenerateDataKey";
        a_rewrapped_key_is_the_same_key: "KMS API ReEncrypt";
        a_changed_wrapped_key_does_not_open: "KMS API Decrypt: InvalidCiphertextException";
        the_key_of_another_service_is_passed_over: "AWS Encryption SDK: encrypted data keys of several providers";
        a_key_is_described_and_signs: "KMS API DescribeKey, Sign";
    }
    references {
        another_value_is_another_version: "SSM API Parameter: Version; Secrets Manager API DescribeSecret: VersionIdsToStages";
        what_is_not_there_has_no_version: "SSM API GetParameters: InvalidParameters; Secrets Manager API DescribeSecret: ResourceNotFoundException";
        many_are_told_together: "SSM API GetParameters: at most 10 names";
    }
    nested {
        a_nested_stack_lives_with_its_parent: "user guide: nested stacks";
        another_nested_template_is_a_change: "roadmap #759";
        a_nested_failure_takes_the_parent_back: "user guide: nested stacks";
        a_failure_beside_it_takes_a_nested_update_back: "user guide: nested stacks";
        a_failed_nested_creation_leaves_nothing: "guess";
        a_nested_stack_is_protected_by_its_root: "API UpdateTerminationProtection: nested stacks";
        only_the_top_is_cancelled_or_continued: "API ContinueUpdateRollback: root stack only";
    }
}

#[test]
fn every_case_is_in_the_specification() {
    crate::specification::covers(CASES);
}
