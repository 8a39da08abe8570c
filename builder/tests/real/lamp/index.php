<?php
$database = new mysqli('localhost', 'www-data', '', 'visits');
$database->query('INSERT INTO log () VALUES ()');
$count = $database->query('SELECT COUNT(*) FROM log')->fetch_row()[0];
echo "visit $count, PHP ", PHP_MAJOR_VERSION, "\n";
