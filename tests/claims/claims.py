"""What README and docs claim, and the test or command that shows it: `docs/traceability.md` is made of this.

A claim is quoted by words that stand in its page. Every bullet and table row of the sections in `WHOLE` must
be quoted by one; `NO_CLAIM` names those that promise nothing.
"""

# ruff: noqa: E501  # quotes and names of tests

from __future__ import annotations

import dataclasses

RUNTIME, EXPORT, TRAIN, BENCHMARKS = "tests/runtime/", "tests/export/", "tests/train/", "tests/benchmarks/"
# page -> headings of sections of which nothing may be left out
WHOLE = {
    "README.md": ("What has been verified where",),
    "SECURITY.md": ("Threats",),
    "docs/bundle.md": ("Exporting", "The seal"),
    "docs/architecture.md": ("Choices", "Files and records"),
}
NO_CLAIM = (
    "CUDA and TensorRT providers, TensorRT engines, training on CUDA",  # unverified, and said so
    "who takes over a package",
    "`ncnn`, `mnn`, `mnn-exact`",
    "Lightning does what it does",
    "The training loss is written out",
)


@dataclasses.dataclass(frozen=True)
class Claim:
    """page: from the repository's root. says: words of it. shown: FILE::TEST or a command."""

    page: str
    says: str
    shown: tuple[str, ...]


def _claims(page: str, shown: dict[str, tuple[str, ...]]) -> tuple[Claim, ...]:
    return tuple(Claim(page, says, tests) for says, tests in shown.items())


SEAL, STORE = RUNTIME + "bundle/test_seal.py::", RUNTIME + "deployment/test_store.py::"
HEALS, GUARDS = RUNTIME + "deployment/test_store_heals.py::", RUNTIME + "cli/test_guards.py::"
VOLUMES = RUNTIME + "images/nifti/"
CLAIMS = (
    *_claims("README.md", {
        "must never get a silently wrong mask": (
            RUNTIME + "parity/test_replay.py::test_bugs_behind_the_network_are_seen",
            "python -m tumorseg_benchmarks.mutants",
        ),
        "training, export, parity, predict, all tests": ("make train", "make export", "make test"),
        "ONNX FP32 and FP16 under ONNX Runtime's CPU provider": (
            EXPORT + "targets/test_onnx_fp16.py", "make parity",
        ),
        "that a device does around the network what it should": (
            "tumorseg verify", RUNTIME + "conformance/test_files.py::test_reading_and_preprocessing_give_them",
        ),
        "ncnn, MNN, OpenVINO, bfloat16": (EXPORT + "targets/test_cpu_targets.py",),
        "numpy, OpenCV, click and ONNX Runtime; never torch": (
            RUNTIME + "test_imports.py::test_importing_the_runtime_loads_nothing_heavy",
        ),
        "one line: got, expected, what to do": (
            "tests/fuzz/test_readers.py::test_no_reader_ends_in_a_raw_exception", "make reliability fuzzed",
        ),
        "test images of both organs that share no group with the training images": (
            TRAIN + "data/test_split.py",
        ),
    }),
    *_claims("SECURITY.md", {
        "who can change a bundle on its way": (
            SEAL + "test_nothing_is_parsed_before_the_signature_is_checked", "make reliability tampered",
        ),
        "who can write into the bundle's folder while it is opened": (
            SEAL + "test_what_is_replaced_during_the_opening_does_not_matter",
            SEAL + "test_a_session_that_is_opened_again_is_made_of_what_was_hashed",
            "make reliability replaced",
        ),
        "who can write into a device's folder of engines": (
            SEAL + "test_a_device_folder_that_others_may_write_is_not_believed",
            RUNTIME + "backends/test_tensorrt.py::test_a_foreign_engine_never_reaches_tensorrt",
        ),
        "a hostile image, DICOM file, archive, checkpoint, record or recipe": (
            "make reliability fuzzed",
            TRAIN + "training/test_resumption.py::test_damage_names_the_epoch_to_go_on_from",
            TRAIN + "networks/test_models.py::test_a_network_that_no_memory_holds_is_refused_before_it_is_made",
        ),
        "a hostile network in a bundle": (
            RUNTIME + "backends/test_onnxruntime.py::test_a_file_that_is_not_the_contracts_network_is_refused",
        ),
        "names and texts in files": (RUNTIME + "cli/test_terminal.py", "make reliability pages"),
        "a power cut, a full disk, kill -9": (
            "make reliability power", "make reliability disks", "make reliability kills",
            STORE + "test_killed_at_any_step_of_an_installation",
        ),
        "who reads logs, outputs and messages": ("make reliability patients",),
        "who listens on the network": (
            GUARDS + "test_native_code_opens_no_connection_either", "make reliability outside",
        ),
        "who can change the repository's workflow": ("zizmor --offline .github action.yml",),
        "wheel and sdist can be built again to the same bytes": (
            "tests/test_packages.py::test_built_twice_they_are_the_same_bytes",
        ),
    }),
    *_claims("docs/bundle.md", {
        "**Proven or refused.**": (EXPORT + "targets/test_validate_parity.py", EXPORT + "bundle/test_export.py"),
        "**Whole or not at all.**": (
            EXPORT + "bundle/test_staging.py::test_interruption_leaves_what_was_there", "make reliability kills",
        ),
        "**Repeatable.**": (EXPORT + "onnx/test_export.py",),
        "`onnx` | `model.onnx`": (EXPORT + "onnx/test_export.py",),
        "`onnx-fp16`": (EXPORT + "targets/test_onnx_fp16.py",),
        "`onnx-int8`, `openvino-int8`": (EXPORT + "targets/test_onnx_int8.py",),
        "`onnx-deploy` |": (EXPORT + "onnx/passes/test_deploy.py",),
        "`onnx-deploy-gray`": (EXPORT + "onnx/passes/test_deploy.py",),
        "`tensorrt-rtx`": (EXPORT + "engine/test_tensorrt_build.py",),
        "a changed byte, a missing file and a file too many are each refused": (
            RUNTIME + "bundle/test_bundle.py::test_damage_is_named", "make reliability tampered",
        ),
        "`bundle.json.sha256` finds a flipped bit": (
            SEAL + "test_every_flipped_bit_of_an_unsigned_index_is_found_by_its_hash", "make reliability index",
        ),
        "What is used of a bundle is what was hashed": (
            SEAL + "test_a_network_that_is_replaced_after_the_check_is_not_served",
        ),
        "A test has the public tool accept it": (
            EXPORT + "bundle/test_model_signing.py::"
            "test_the_public_tool_accepts_it_and_refuses_every_change",
        ),
        "A test validates the document against the official schema": (
            EXPORT + "bundle/test_sbom.py::test_it_is_under_seal_and_names_packages_and_artefacts",
        ),
    }),
    *_claims("docs/architecture.md", {
        "**Preprocessing exists once**": (
            RUNTIME + "processing/test_preprocess.py::test_the_tensor_is_the_plain_formula_bit_for_bit",
        ),
        "**Parity is judged on decisions**": (RUNTIME + "parity/test_compare.py",),
        "**The temperature divides logits where probabilities are reported": (
            RUNTIME + "inference/test_input_check.py::"
            "test_masks_are_the_same_bit_for_bit_and_probabilities_are_scaled",
        ),
        "**The input guard flags and never refuses**": (
            RUNTIME + "inference/test_input_check.py::"
            "test_the_self_test_holds_guard_and_temperature_against_their_rules",
        ),
        "**One loop decides**": (
            RUNTIME + "parity/test_refused_everywhere.py::test_masks_that_are_wrong_are_refused_by_all",
        ),
        "**Strict backends**": (
            RUNTIME + "backends/test_onnxruntime.py::test_a_session_that_fell_back_is_refused",
        ),
        "**FP16 is a graph of its own**": (EXPORT + "targets/test_onnx_fp16.py",),
        "**A precision is an artefact.**": (
            RUNTIME + "backends/test_openvino.py::test_the_precision_is_pinned_and_what_was_granted_is_compared",
        ),
        "**Graph passes belong to the target**": (EXPORT + "onnx/passes/test_choice.py",),
        "**One page for all commands**": (TRAIN + "report/test_page.py",),
        "**A script of 80 lines**": (TRAIN + "report/test_page.py", "tests/browser/test_pages.py"),
        "**Commands are entry points**": (RUNTIME + "test_imports.py",),
        "holds the interpreter's lock, may hang": (
            RUNTIME + "backends/test_mnn.py::test_a_worker_that_hangs_is_ended_and_replaced",
            "make reliability worker",
        ),
        "its modules load neither torch nor onnx": (EXPORT + "engine/test_build.py",),
        "lies in a **device folder**": (RUNTIME + "device/test_cache.py",),
        "Recipes are TOML files": (TRAIN + "config/test_recipe.py",),
        "fails where anything else writes files or reads JSON": (
            "tests/test_files_and_records.py::test_nobody_else_writes_files_or_reads_json",
        ),
    }),
    *_claims("docs/training.md", {
        "it ends with the bits of an uninterrupted one": (
            TRAIN + "training/test_resume.py::"
            "test_a_killed_training_ends_with_the_bits_of_an_uninterrupted_one",
        ),
        "is one line, which names the epoch": (
            TRAIN + "training/test_resumption.py::test_damage_names_the_epoch_to_go_on_from",
        ),
    }),
    *_claims("docs/integrators.md", {
        "STORE still points at a bundle that was tested": (
            STORE + "test_killed_at_any_step_of_an_installation", "make reliability power",
        ),
        "A damaged store heals": (HEALS + "test_every_file_damaged_in_every_way",),
        "A round trip through Orthanc, compared pixel by pixel": (
            RUNTIME + "test_pacs.py::test_the_object_that_comes_back_holds_the_masks",
        ),
    }),
    *_claims("docs/runtime.md", {
        "with the source's shape, affine and": (
            VOLUMES + "test_predict.py::test_the_mask_has_the_volumes_grid_and_lesions_have_mm3",
        ),
        "are read slice by slice and never held as a whole": (
            VOLUMES + "test_slices.py::test_a_volume_is_never_held_as_a_whole",
        ),
        "A lesion is a 26-connected component of the whole mask volume": (
            RUNTIME + "processing/test_lesions_3d.py::test_components_are_those_of_the_whole_volume",
        ),
        "several volumes (4-D), 2-D, colour, complex": (VOLUMES + "test_refusals.py::test_refused",),
        "frame (n - 1) K + k for class k": (
            RUNTIME + "images/dicom/test_segmentation_frames.py::test_one_object_holds_all_frames_with_their_references",
        ),
        "dciodvfy (no errors)": (
            RUNTIME + "images/dicom/test_segmentation_frames.py::test_other_tools_read_the_object_and_find_no_error",
        ),
        "gives one affine, and in each place the mask of the image there": (
            RUNTIME + "images/dicom/test_segmentation_series.py::test_one_object_is_the_volume_of_the_series",
        ),
        "an earlier object is removed": (
            RUNTIME + "images/dicom/test_segmentation_series.py::"
            "test_a_series_with_a_hole_has_no_object_not_even_an_earlier_one",
        ),
        "the minimum to the maximum of all such frames": (
            RUNTIME + "images/dicom/test_series.py::test_the_range_is_that_of_the_series_in_its_own_unit",
        ),
        "the background, then the class named first": (
            RUNTIME + "processing/test_decision.py::"
            "test_of_equal_logits_the_background_comes_first_then_the_classes_in_their_order",
            "tests/gpu_null/test_masks.py::test_several_classes_are_decided_by_the_rule_ties_included",
            EXPORT + "onnx/passes/test_deploy.py::"
            "test_under_softmax_the_largest_logit_above_0_decides_and_ties_go_to_the_first",
        ),
        "by half of that to another class": (
            RUNTIME + "processing/test_decision.py::"
            "test_an_error_below_the_distance_changes_no_decision_and_one_above_can",
        ),
    }),
    *_claims("docs/scale.md", {
        "byte by byte, in the same": ("tests/scale/test_ray.py::test_nothing_is_lost_and_nothing_twice", "make scale"),
        "from the machine that started the run is refused": (
            RUNTIME + "outputs/test_worker.py::test_another_folder_and_another_session_are_refused",
        ),
        "goes on after the run itself was stopped": (
            "tests/scale/test_ray.py::test_a_stopped_run_goes_on_and_stores_are_read",
        ),
        "One bad image is one error": (
            "tests/scale/test_triton.py::test_a_bad_image_is_an_error_of_its_request_alone",
            RUNTIME + "serving/test_repository.py::test_each_request_has_its_answer_or_its_error",
        ),
        "refuses at once": ("tests/scale/test_triton.py::test_a_full_queue_refuses_at_once_and_loses_nothing",),
        "sees it and loads the model again": (
            "tests/scale/test_triton.py::test_a_killed_instance_is_replaced_and_nothing_is_lost",
        ),
        "The model does not become ready there": (
            RUNTIME + "serving/test_repository.py::test_a_server_that_reads_arrays_wrongly_does_not_become_ready",
        ),
    }),
    *_claims("docs/checkpoints.md", {
        "its sigmoid is the softmax": (
            EXPORT + "checkpoint/test_decision.py::test_two_classes_are_the_sigmoid_of_one_logit",
        ),
        "A head folded wrongly": (
            EXPORT + "checkpoint/test_decision.py::test_a_head_that_was_folded_wrongly_is_refused",
        ),
        "several classes without a rule": (
            EXPORT + "checkpoint/test_decision.py::test_what_cannot_be_known_is_refused_with_the_reason",
        ),
        "each golden image beside itself": (
            EXPORT + "references/test_mask_shares.py::test_the_export_says_it_and_seals_the_sheet",
        ),
    }),
    *_claims("docs/data.md", {
        "Slices of one volume are one group": (
            TRAIN + "layouts/test_volumes.py::test_brats_is_imported_prepared_and_split_by_patient",
        ),
    }),
)  # fmt: skip
