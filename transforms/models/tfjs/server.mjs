// Runs one TensorFlow.js model: batches come in on stdin, predictions go out on stdout.
//
//   node server.mjs <folder of model.json> [names of the outputs to send; default: all]
//
// The protocol, in this machine's byte order (node.py implements the other side):
//   frame  = uint64 length of the rest, body
//   tensor = uint32 dtype (index into DTYPES), uint32 rank, uint32 sizes[rank], values,
//            zeros up to a multiple of 4 bytes
// This process first sends a frame: uint32 status and a text, either JSON that describes the model
// or an error. It then answers each incoming frame, of one tensor per input, with a frame: uint32
// status, and one tensor per output to send or the text of an error. It exits at the end of stdin,
// however the other side ended.

import { readFileSync, readSync, writeSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const DTYPES = ["float32", "int32", "bool"];
const ARRAYS = { float32: Float32Array, int32: Int32Array, bool: Uint8Array };
const OK = 0;
const FAILED = 1;
const [STDIN, STDOUT] = [0, 1];
// Node rejects reads and writes of 2 GiB or more.
const MAX_BYTES = 1 << 30;

// stdout is for frames only. Set before the libraries load, as they keep references.
console.log = console.info = console.debug = console.error;
const require = createRequire(import.meta.url);
const tf = require("@tensorflow/tfjs");
require("@tensorflow/tfjs-backend-wasm");

// ---- frames ----

// Blocking calls on pipes: they wait for the other side, so nothing is queued here.

let incoming = new Uint8Array(0); // Reused for all batches; grows to the largest.

function readBytes(length) {
  if (incoming.length < length) incoming = new Uint8Array(length);
  for (let done = 0; done < length; ) {
    const count = readSync(STDIN, incoming, done, Math.min(length - done, MAX_BYTES), null);
    if (count === 0) process.exit(0);
    done += count;
  }
  return incoming.subarray(0, length);
}

function readFrame() {
  const length = new BigUint64Array(readBytes(8).slice().buffer)[0];
  return readBytes(Number(length));
}

function writeBytes(bytes) {
  for (let done = 0; done < bytes.length; ) {
    done += writeSync(STDOUT, bytes, done, Math.min(bytes.length - done, MAX_BYTES));
  }
}

function writeFrame(status, chunks) {
  const length = chunks.reduce((total, chunk) => total + chunk.byteLength, 4);
  writeBytes(new Uint8Array(new BigUint64Array([BigInt(length)]).buffer));
  for (const chunk of [new Uint32Array([status]), ...chunks]) {
    writeBytes(new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.byteLength));
  }
}

function writeText(status, text) {
  writeFrame(status, [new TextEncoder().encode(text)]);
}

const padding = (bytes) => (4 - (bytes % 4)) % 4;

// Views of the bytes, not copies: TensorFlow.js copies them into WebAssembly's memory at once.
function decode(bytes) {
  const tensors = [];
  for (let at = 0; at < bytes.length; ) {
    const [dtype, rank] = new Uint32Array(bytes.buffer, at, 2);
    const shape = Array.from(new Uint32Array(bytes.buffer, at + 8, rank));
    at += 8 + 4 * rank;
    const values = new ARRAYS[DTYPES[dtype]](bytes.buffer, at, tf.util.sizeFromShape(shape));
    tensors.push(tf.tensor(values, shape, DTYPES[dtype]));
    at += values.byteLength + padding(values.byteLength);
  }
  return tensors;
}

function encode(tensor) {
  const values = tensor.dataSync();
  return [
    new Uint32Array([DTYPES.indexOf(tensor.dtype), tensor.rank, ...tensor.shape]),
    values,
    new Uint8Array(padding(values.byteLength)),
  ];
}

// ---- the model ----

// Without memory, the library would continue at address 0 and overwrite its own data.
function refuseFailedAllocations() {
  const { wasm } = tf.backend();
  wasm._free(wasm._malloc(1)); // The first call replaces the stub with the function itself.
  const allocate = wasm._malloc;
  wasm._malloc = (bytes) => {
    // WebAssembly would truncate a larger number to 32 bits.
    const address = bytes < 2 ** 32 ? allocate(bytes) : 0;
    if (address === 0 && bytes > 0) {
      throw new Error(
        `WebAssembly's memory, at most 4 GiB, has no room for another ${bytes} bytes`,
      );
    }
    return address;
  };
}

// A custom handler that reads local files only, as the library's would fetch.
function makeHandler(folder, description) {
  const load = (manifest) => {
    const shards = manifest.flatMap((group) => group.paths.map((path) => join(folder, path)));
    const specs = manifest.flatMap((group) => group.weights);
    return [specs, shards.map((shard) => new Uint8Array(readFileSync(shard)).buffer)];
  };
  return { load: () => tf.io.getModelArtifactsForJSON(description, async (m) => load(m)) };
}

// The sizes of a shape, with null for dynamic ones; null for an unknown shape.
const sizes = (shape) => shape?.map((size) => (size == null || size < 0 ? null : size)) ?? null;
const stripIndex = (name) => name.replace(/:0$/, "");
const input = (name, { dtype = "unknown", shape }) => ({ name, dtype, shape: sizes(shape) });

// A model has its inputs, the names of its outputs, and `run`, from list to list of tensors.

async function layersModel(folder, description) {
  const model = await tf.loadLayersModel(makeHandler(folder, description));
  if (model instanceof tf.Sequential) model.build(); // It has no names before its first call.
  return {
    inputs: model.inputs.map((tensor, index) => input(model.inputNames[index], tensor)),
    outputs: model.outputNames,
    // Not `predict`, which splits batches into pieces of 32.
    run: (tensors) => [model.predictOnBatch(tensors)].flat(),
  };
}

async function graphModel(folder, description) {
  const model = await tf.loadGraphModel(makeHandler(folder, description));
  // The names are those of the signature's arguments, or of the graph's nodes if there is none. The
  // converter writes the names of tensors (`image:0`) if it does not find those of the arguments.
  // Tables and variables, which are resources, are filled by the library.
  const { inputs, outputs } = model.modelSignature ?? {};
  const node = (name) => model.inputs.find((candidate) => candidate.name === stripIndex(name));
  const inputNames = inputs
    ? Object.keys(inputs).filter((key) => inputs[key].resourceId == null && node(inputs[key].name))
    : model.inputs.map(({ name }) => name);
  const outputNames = outputs ? Object.keys(outputs) : model.outputs.map(({ name }) => name);
  const byName = (tensors) =>
    Object.fromEntries(inputNames.map((key, index) => [key, tensors[index]]));
  return {
    inputs: inputNames.map((key) => input(stripIndex(key), node(inputs?.[key].name ?? key))),
    outputs: outputNames.map(stripIndex),
    run: (tensors) => [model.execute(byName(tensors), outputNames)].flat(),
    runAsync: async (tensors) => [await model.executeAsync(byName(tensors), outputNames)].flat(),
  };
}

// Applies `take` to the outputs for the inputs that `make` creates, and disposes of all tensors.
async function predict(model, make, take) {
  if (!model.isAsync) {
    try {
      return tf.tidy(() => take(model.run(make())));
    } catch (error) {
      // Control flow, and outputs whose size depends on values, need `executeAsync`.
      model.isAsync = Boolean(model.runAsync) && /executeAsync/.test(error.message);
      if (!model.isAsync) throw error;
    }
  }
  const inputs = make();
  let outputs = [];
  try {
    outputs = await model.runAsync(inputs);
    return take(outputs);
  } finally {
    tf.dispose([inputs, outputs]);
  }
}

// The outputs for two examples of zeros, so that a missing op shows before the data is read.
// Their first size is null if it is the number of examples.
async function tryOut(model) {
  const unknown = model.outputs.map((name) => ({ name, dtype: "float32", shape: null }));
  const { inputs } = model;
  // The other side rejects such inputs, with its own message.
  if (!inputs.every(({ dtype, shape }) => DTYPES.includes(dtype) && shape?.[0] === null)) {
    return unknown;
  }
  const two = (shape) => [2, ...shape.slice(1).map((size) => size ?? 1)];
  const make = () => inputs.map(({ dtype, shape }) => tf.zeros(two(shape), dtype));
  const take = (tensors) =>
    tensors.map(({ dtype, shape: [rows, ...rest] }, index) => ({
      name: model.outputs[index],
      dtype,
      shape: rows === undefined ? [] : [rows === 2 ? null : rows, ...rest],
    }));
  try {
    return await predict(model, make, take);
  } catch (error) {
    // For dynamic sizes, 1 may be too small for the model.
    const guessed = inputs.some(({ shape }) => shape.slice(1).includes(null));
    if (guessed && !isUnavailable(error)) return unknown;
    throw error;
  }
}

const UNKNOWN_OP = /^Unknown op '([^']+)'/;
const UNKNOWN_KERNEL = /Kernel '([^']+)' not registered/;
const isUnavailable = ({ message }) => UNKNOWN_OP.test(message) || UNKNOWN_KERNEL.test(message);

function explain(error) {
  const library = `TensorFlow.js ${tf.version.tfjs}`;
  const op = UNKNOWN_OP.exec(error.message);
  if (op) return `custom op '${op[1]}' is not available in ${library}. Convert without it`;
  const kernel = UNKNOWN_KERNEL.exec(error.message);
  if (kernel) return `op '${kernel[1]}' is not available in the WebAssembly backend of ${library}`;
  return error.message ?? String(error);
}

async function load(folder) {
  await tf.setBackend("wasm");
  refuseFailedAllocations();
  const description = JSON.parse(readFileSync(join(folder, "model.json"), "utf8"));
  const form = description.format === "layers-model" ? layersModel : graphModel;
  return form(folder, description);
}

const [folder, ...wanted] = process.argv.slice(2);
let model;
try {
  model = await load(folder);
  const outputs = await tryOut(model);
  writeText(OK, JSON.stringify({ inputs: model.inputs, outputs }));
} catch (error) {
  writeText(FAILED, explain(error));
  process.exit(0);
}
const isWanted = (name) => !wanted.length || wanted.includes(name);
const select = (tensors) => tensors.filter((_, index) => isWanted(model.outputs[index]));
for (;;) {
  const bytes = readFrame();
  try {
    const make = () => decode(bytes);
    writeFrame(OK, await predict(model, make, (tensors) => select(tensors).flatMap(encode)));
  } catch (error) {
    // A trap leaves WebAssembly's memory undefined: better no prediction than a wrong one.
    if (error instanceof WebAssembly.RuntimeError) {
      console.error(`WebAssembly stopped, as it does when it is out of memory: ${error.message}`);
      process.exit(1);
    }
    writeText(FAILED, explain(error));
  }
}
