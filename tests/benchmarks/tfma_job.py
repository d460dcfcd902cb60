"""The reference job through TFMA's public entry: `python tfma_job.py DATA_GLOB MODEL OUTPUT`."""

import sys

import apache_beam as beam
import reference
import tensorflow_model_analysis as tfma
from apache_beam.options.pipeline_options import PipelineOptions
from google.protobuf import text_format
from tensorflow_model_analysis.proto import config_pb2
from tfx_bsl.tfxio import tf_example_record


def main(data: str, model: str, output: str) -> None:
    slicing = "\n".join(
        "slicing_specs { " + " ".join(f'feature_keys: "{key}"' for key in spec) + " }"
        for spec in reference.SLICES
    )
    metrics = " ".join(f'metrics {{ class_name: "{name}" }}' for name in reference.METRICS)
    config = text_format.Parse(
        f'model_specs {{ label_key: "label" }} slicing_specs {{}} {slicing} '
        f"metrics_specs {{ {metrics} }}",
        config_pb2.EvalConfig(),
    )
    shared = tfma.default_eval_shared_model(
        eval_saved_model_path=model, eval_config=config, tags=["serve"]
    )
    source = tf_example_record.TFExampleRecord(
        file_pattern=data, raw_record_column_name=tfma.ARROW_INPUT_COLUMN
    )
    options = PipelineOptions(
        ["--runner=DirectRunner", f"--update_compatibility_version={beam.version.__version__}"]
    )
    with beam.Pipeline(options=options) as pipeline:
        _ = (
            pipeline
            | "Read" >> source.BeamSource()
            | "Evaluate"
            >> tfma.ExtractEvaluateAndWriteResults(
                eval_shared_model=shared, eval_config=config, output_path=output
            )
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
