// node web.mjs FOLDER MODEL INPUT TYPE SHAPE OUTPUT
//
// Runs a model with the onnxruntime-web that is installed in FOLDER, on the raw bytes of its only
// input, and writes the raw bytes of its output. Prints the type and the shape of the output, or why
// it was refused.

import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";

const ARRAYS = { float32: Float32Array, float16: Uint16Array };
const [folder, model, input, type, shape, output] = process.argv.slice(2);
const ort = createRequire(`${folder}/`)("onnxruntime-web");
ort.env.logLevel = "fatal";
ort.env.wasm.numThreads = 1;

let answer;
try {
  const session = await ort.InferenceSession.create(readFileSync(model));
  const bytes = new Uint8Array(readFileSync(input));
  const values = new (ARRAYS[type] ?? Uint16Array)(bytes.buffer);
  const feeds = { x: new ort.Tensor(type, values, JSON.parse(shape)) };
  const { y } = await session.run(feeds);
  writeFileSync(output, new Uint8Array(y.data.buffer, y.data.byteOffset, y.data.byteLength));
  answer = { type: y.type, shape: y.dims };
} catch (error) {
  answer = { refused: String(error?.message ?? error) };
}
console.log(JSON.stringify(answer));
