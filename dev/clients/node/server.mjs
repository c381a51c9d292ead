// The server that the tests talk to: the real binary with its demo model.
// MILLRACE is the binary's path.
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { after } from "node:test";

let server;
after(() => server?.kill());

/** Starts a server with the flags and resolves with its address once it is ready; it ends with the tests. */
export function start(...flags) {
  server = spawn(process.env.MILLRACE, ["serve", "--hostname", "127.0.0.1", "--port", "0", "--json-output", ...flags], { stdio: ["ignore", "ignore", "pipe"] });
  return new Promise((resolve, reject) => {
    let address;
    server.on("exit", (code) => reject(new Error(`the server ended with ${code}`)));
    createInterface({ input: server.stderr }).on("line", (line) => {
      const entry = JSON.parse(line);
      if (entry.message === "listening") address = `http://${entry.address}`;
      if (entry.message === "ready") resolve(address);
    });
  });
}

export const weather = {
  name: "get_weather",
  description: "Get the weather of a city.",
  parameters: { type: "object", properties: { city: { type: "string", description: "The city" } }, required: ["city"] },
};
