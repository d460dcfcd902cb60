// Small models that TensorFlow.js makes and saves itself:
//   node make_tfjs.mjs <folder that has node_modules> <folder for the models>

import { mkdirSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const [packages, folder] = process.argv.slice(2);
const tf = createRequire(join(packages, "any.js"))("@tensorflow/tfjs");
tf.enableProdMode(); // No advertisement for another backend.
const { layers } = tf;

let seed = 1;
const drawn = () => tf.initializers.randomUniform({ minval: -1, maxval: 1, seed: seed++ });
const dense = (units, config) =>
  layers.dense({ units, kernelInitializer: drawn(), biasInitializer: drawn(), ...config });
const input = (name, shape, dtype = "float32") => tf.input({ name, shape, dtype });

async function save(name, inputs, outputs) {
  const model = tf.model({ inputs, outputs });
  await model.save(
    tf.io.withSaveHandler(async ({ modelTopology, weightSpecs, weightData }) => {
      mkdirSync(join(folder, name));
      // Two shards, the second of one byte: a cut may go through a weight.
      const bytes = new Uint8Array(weightData);
      const paths = ["shard1.bin", "shard2.bin"];
      writeFileSync(join(folder, name, paths[0]), bytes.subarray(0, -1));
      writeFileSync(join(folder, name, paths[1]), bytes.subarray(-1));
      const weightsManifest = [{ paths, weights: weightSpecs }];
      const described = { format: "layers-model", modelTopology, weightsManifest };
      writeFileSync(join(folder, name, "model.json"), JSON.stringify(described));
      return { modelArtifactsInfo: { dateSaved: new Date(), modelTopologyType: "JSON" } };
    }),
  );
}

const x = input("x", [3]);
const hidden = dense(4, { activation: "relu" }).apply(x);
await save("dense", x, dense(1, { activation: "sigmoid", name: "p" }).apply(hidden));

const image = input("image", [4, 4, 1]);
const seen = layers
  .conv2d({ filters: 2, kernelSize: 3, kernelInitializer: drawn(), activation: "relu" })
  .apply(image);
const flat = layers.flatten().apply(seen);
await save("conv", image, dense(3, { activation: "softmax", name: "digit" }).apply(flat));
await save("unflattened", image, seen);

const age = input("age", [1]);
const both = layers.concatenate().apply([age, x]);
const two = [dense(1, { name: "one" }).apply(both), dense(2, { name: "two" }).apply(both)];
await save("two", [age, x], two);

const token = input("token", [2], "int32");
const embedded = layers
  .embedding({ inputDim: 5, outputDim: 2, embeddingsInitializer: drawn() })
  .apply(token);
await save("embedding", token, dense(1, { name: "p" }).apply(layers.flatten().apply(embedded)));

const tokens = input("tokens", [null, 2]);
const pooled = layers.globalAveragePooling1d({ name: "mean" }).apply(tokens);
await save("open", tokens, pooled);

await save("wide", x, dense(32768, { name: "wide" }).apply(x));

const pixels = input("image", [64]);
await save("three", pixels, dense(3, { name: "digit" }).apply(pixels));
await save("single", pixels, dense(1, { name: "p" }).apply(pixels));

const fixed = tf.input({ name: "x", batchShape: [8, 3] });
await save("fixed", fixed, dense(1).apply(fixed));
