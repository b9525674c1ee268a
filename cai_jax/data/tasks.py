"""seqio tasks and mixtures over stage records, and the feature converters of our models.

Token ids are made once, in prompts/, and stored; tasks pass them through. seqio's own language
model converters shift a 0 in as the first input. A pretrained decoder never saw that 0, so our
converters hand out unshifted tokens, and the loss shifts.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np

from cai_jax.data.records import SPLIT, VERSION, Part
from cai_jax.tf import seqio, tf

SHUFFLE_BUFFER = 100_000


def mixture(
    name: str, parts: Sequence[Part], features: Sequence[str], vocab_size: int
) -> seqio.Mixture:
    """A mixture of record datasets; ``features`` are the integer sequences to keep.

    Every row is read once an epoch; rates decide how the parts are interleaved.
    """
    vocabulary = seqio.PassThroughVocabulary(vocab_size)
    output_features = {
        feature: seqio.Feature(vocabulary, add_eos=False, dtype=tf.int32) for feature in features
    }
    tasks = [
        (
            seqio.Task(
                f"{name}_{part.folder.name}",
                seqio.TfdsDataSource(
                    f"{part.folder.name}:{VERSION}",
                    tfds_data_dir=str(part.folder.parent),
                    splits=[SPLIT],
                ),
                output_features,
                preprocessors=[],
                shuffle_buffer_size=SHUFFLE_BUFFER,
            ),
            part.rate,
        )
        for part in parts
    ]
    # seqio would end the epoch with the first part that runs dry, and drop rows of the others.
    every_row = partial(tf.data.Dataset.sample_from_datasets, stop_on_empty_dataset=False)
    return seqio.Mixture(name, tasks, sample_fn=every_row)


def batches(
    mix: seqio.Mixture,
    converter: seqio.FeatureConverter,
    lengths: Mapping[str, int],
    batch_size: int,
    seeds: Sequence[int],
) -> Iterator[dict[str, np.ndarray]]:
    """Shuffled batches of a mixture, one epoch a seed; the last one of each may be short."""
    for seed in seeds:
        dataset = seqio.get_dataset(
            mix,
            task_feature_lengths=dict(lengths),
            feature_converter=converter,
            dataset_split=SPLIT,
            shuffle=True,
            num_epochs=1,
            seed=seed,
            verbose=False,
        )
        yield from dataset.batch(batch_size).as_numpy_iterator()


class CausalLMConverter(seqio.FeatureConverter):
    """Several dialogues a row: ``tokens``, ``loss_mask`` (1 where trained on), ``segments``.

    seqio finds the end of a sequence by its first 0, but 0 is a real token id and most of a loss
    mask; values go through its packing one higher.
    """

    TASK_FEATURES = {
        "tokens": seqio.FeatureConverter.FeatureSpec(dtype=tf.int32),
        "loss_mask": seqio.FeatureConverter.FeatureSpec(dtype=tf.int32),
    }
    MODEL_FEATURES = {**TASK_FEATURES, "segments": TASK_FEATURES["tokens"]}
    PACKING_FEATURE_DTYPES: Mapping[str, tf.DType] = {}

    def __init__(self) -> None:
        super().__init__(pack=True)

    def get_model_feature_lengths(self, task_feature_lengths: Mapping[str, int]) -> dict[str, int]:
        """All features are as long as the tokens."""
        return dict.fromkeys(self.MODEL_FEATURES, task_feature_lengths["tokens"])

    def _convert_features(
        self, ds: tf.data.Dataset, task_feature_lengths: Mapping[str, int]
    ) -> tf.data.Dataset:
        raised = ds.map(lambda row: {key: row[key] + 1 for key in self.TASK_FEATURES})
        packed = self._pack_or_pad(raised, task_feature_lengths)
        return packed.map(
            lambda row: {
                "tokens": tf.maximum(row["tokens"] - 1, 0),
                "loss_mask": tf.maximum(row["loss_mask"] - 1, 0),
                "segments": row["tokens_segment_ids"],
            }
        )


class PreferenceConverter(seqio.FeatureConverter):
    """Two dialogues a row, padded on the right, with their lengths.

    ``target_ppm``, P(first is better), and ``weight_ppm``, the pair's weight in the loss, are in
    parts per million: seqio features are integers.
    """

    TASK_FEATURES = {
        "first": seqio.FeatureConverter.FeatureSpec(dtype=tf.int32),
        "second": seqio.FeatureConverter.FeatureSpec(dtype=tf.int32),
        "target_ppm": seqio.FeatureConverter.FeatureSpec(dtype=tf.int32),
        "weight_ppm": seqio.FeatureConverter.FeatureSpec(dtype=tf.int32),
    }
    MODEL_FEATURES = {
        **TASK_FEATURES,
        "first_segments": TASK_FEATURES["first"],
        "second_segments": TASK_FEATURES["second"],
    }
    PACKING_FEATURE_DTYPES: Mapping[str, tf.DType] = {}

    def __init__(self) -> None:
        super().__init__(pack=False)

    def get_model_feature_lengths(self, task_feature_lengths: Mapping[str, int]) -> dict[str, int]:
        """Segments are as long as their tokens."""
        return {
            **task_feature_lengths,
            "first_segments": task_feature_lengths["first"],
            "second_segments": task_feature_lengths["second"],
        }

    def _convert_features(
        self, ds: tf.data.Dataset, task_feature_lengths: Mapping[str, int]
    ) -> tf.data.Dataset:
        def with_segments(row: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            return {
                **{key: row[key] for key in self.TASK_FEATURES},
                "first_segments": tf.ones_like(row["first"]),
                "second_segments": tf.ones_like(row["second"]),
            }

        return self._pack_or_pad(
            ds.map(with_segments), self.get_model_feature_lengths(task_feature_lengths)
        )
