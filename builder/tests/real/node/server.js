const express = require('express');

const app = express();
app.get('/', (request, response) => response.send(`hello from node ${request.query.name}\n`));
app.listen(8080);
