// What is below the live part, in this order, and what a card offers. Each component gets {store, api, t, fmt};
// CardActions gets {uplink} as well, and Tools is beside the switches of the header.
// A section: {id: "connections", title: "connections.title" (key), component}; `id` is its fragment, too.
import { Connections } from "./connections.js";
import { Why } from "./why.js";
import { Events } from "./events.js";
import { Clients } from "./clients.js";
import { Plan } from "./plan.js";

export { CardActions } from "./actions.js";
export { Tools } from "./report.js";

export const sections = [
  { id: "connections", title: "connections.title", component: Connections },
  { id: "why", title: "why.title", component: Why },
  { id: "events", title: "events.title", component: Events },
  { id: "clients", title: "clients.title", component: Clients },
  { id: "plan", title: "plan.title", component: Plan },
];
