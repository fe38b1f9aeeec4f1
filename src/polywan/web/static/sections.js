// What is below the live part, in this order, and what a card offers. Each component gets {store, api, t, fmt};
// CardActions gets {uplink} as well, and Tools is beside the switches of the header.
// A section: {id: "connections", title: "connections.title" (key), component}; `id` is its fragment, too.
export const sections = [];
export const CardActions = null;
export const Tools = null;
