DELETE FROM `Locks` WHERE `name` = 'logins';

DROP TABLE `Tokens`;
